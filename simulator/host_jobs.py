"""What each job of a process takes on a machine that runs every role for real, from a calibrated profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from persia.scenario import Profile, Scenario
from simulator.host_conditions import crowd_idle, is_fixed, other_ranks, slowdowns, stage_paces
from simulator.host_costs import (
    GATHERED_REQUEST,
    GATHERED_SUM,
    HEADER_BYTES,
    MEETING,
    RANK_MESSAGES,
    REDUCTIONS,
    STAGE_OF_ROLE,
    SUMMING,
    TRAINING_TOGETHER,
    Constants,
    Quantities,
    Terms,
    gathers,
    is_crowded,
    quantities,
    reduces,
    reduction_terms,
    sleep_cost,
    sleep_terms,
    stage_seconds,
    stage_terms,
    summing_s,
)

_AFTER = 0.3  # of a rank's message: to look what is due and go to sleep, in every process alike (seen in a profile of the driver)
_REQUEST = "host.server.s_per_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCosts:
    """Seconds of each job and bytes of each message of one batch; per server where a job is one server's."""

    cores: float
    slowdown: Mapping[str, float]  # of each stage's work while other cores are busy
    sleep_s: Mapping[str, float]  # what it costs the own thread of a stage's process to have slept
    noise_cv: float  # of each job's time
    wake_s: float  # of an idle core
    moves_on_wake: float  # of wakes: may go to another core, 0..1
    after_s: float  # of what taking a message takes, that comes after all that the message leads to
    post_s: float  # what another thread of a process has done, heard by its own
    io_s_per_message: float
    io_s_per_byte: float
    # loader
    read_s: float
    send_features_s: float
    send_samples_s: float
    loader_message_s: float
    features_bytes: float
    samples_bytes: float
    # embedding worker
    worker_message_s: float
    take_features_s: float
    dedup_s: float
    ask_s: float
    take_rows_s: float
    pool_s: float
    send_pooled_s: float
    take_gradients_s: float
    unpool_s: float
    send_update_s: float
    take_ack_s: float
    keys_bytes: float
    rows_bytes: float
    pooled_bytes: float
    # parameter server
    request_s: float
    request_update_s: float
    reply_s: float
    reply_update_s: float
    lookup_s: float
    update_s: float
    gather_s: float  # what summing a step adds for each of its batches
    distinct_in_step: float  # rows of a step's sum over the rows of one batch
    dense_update_s: float
    slice_bytes: float
    snapshot_s: float
    # NN worker
    rank_message_s: float
    meeting_message_s: float  # either end of a message by which ranks meet
    take_samples_s: float
    take_pooled_s: float
    send_gradients_s: float
    train_s: float  # up to the reduction
    reduce_s: float
    optimizer_s: float  # behind the reduction
    exchange_s: float

    def transfer_s(self, size_bytes: float) -> float:
        """Return the processor seconds of moving a message, both ends together."""
        return self.io_s_per_message + self.io_s_per_byte * (size_bytes + HEADER_BYTES)


def job_costs(scenario: Scenario, profile: Profile) -> JobCosts:
    """Return what each job costs; raises ScenarioError where the profile was not calibrated."""
    q = quantities(scenario)
    terms, servers, pace = stage_terms(q), float(q.servers), scenario.simulation.pace or 1.0
    at = _at_pace(scenario, profile, q, pace)
    stage = {name: stage_seconds(at, each) for name, each in terms.items()}
    worker_message_s = at["host.worker.s_per_batch"] / 6.0  # features, lookup, gradients in; pooled, pushed, credit out
    rank_message_s = at["host.rank.s_per_batch"] / RANK_MESSAGES
    per_server_s = at["host.worker.s_per_server"] / 4.0
    rows_s = 0.5 * stage_seconds(at, _only(terms["worker rest"], "host.worker.s_per_row_value")) / servers
    request_s = at[_REQUEST] / 2.0
    rank_byte_s, share = at["host.rank.s_per_byte"], at["host.server.lookup_share"]
    server_rows_s = stage_seconds(at, _only(terms["server"], "host.server.s_per_row", "host.server.s_per_value")) / servers
    dense_s = stage_seconds(at, _only(terms["server"], "host.server.dense")) / servers
    pooled_s = 0.5 * at["host.worker.s_per_pooled_byte"] * q.pooled_bytes
    optimizer_s = stage_seconds(at, _only(terms["train"], "host.rank.optimizer_s_per_parameter"))
    exchange_s = at["host.rank.exchange_s_per_server"] * servers + at["host.rank.exchange_s_per_parameter"] * q.parameters
    return JobCosts(
        cores=profile["host.cores"] - profile["host.background_cores"],
        slowdown=slowdowns(profile, q, crowded=is_crowded(scenario)),
        sleep_s={stage: at[sleep_cost(stage)] for stage in STAGE_OF_ROLE.values()},
        noise_cv=profile["host.noise_cv"],
        wake_s=profile["host.wake_s"] * pace,
        moves_on_wake=profile["host.moves_on_wake"],
        after_s=_AFTER * rank_message_s,
        post_s=rank_message_s,
        io_s_per_message=at["host.io.s_per_message"],
        io_s_per_byte=at["host.io.s_per_byte"],
        read_s=0.2 * at["host.loader.s_per_batch"] + _drawing_s(scenario, at, q),
        send_features_s=0.2 * at["host.loader.s_per_batch"] + at["host.loader.s_per_byte"] * q.features_bytes,
        send_samples_s=0.2 * at["host.loader.s_per_batch"] + at["host.loader.s_per_byte"] * q.samples_bytes,
        loader_message_s=0.2 * at["host.loader.s_per_batch"],
        features_bytes=q.features_bytes,
        samples_bytes=q.samples_bytes,
        worker_message_s=worker_message_s,
        take_features_s=worker_message_s + at["host.worker.s_per_id"] * q.ids,
        dedup_s=stage["dedup"],
        ask_s=per_server_s + 0.5 * at["host.worker.s_per_row"] * q.rows / servers,
        take_rows_s=per_server_s + rows_s,
        pool_s=stage["pool"],
        send_pooled_s=worker_message_s + pooled_s,
        take_gradients_s=worker_message_s + pooled_s,
        unpool_s=stage["un-pool"],
        send_update_s=per_server_s + rows_s + 0.5 * at["host.worker.s_per_row"] * q.rows / servers,
        take_ack_s=per_server_s,
        keys_bytes=q.keys_bytes,
        rows_bytes=q.rows_bytes,
        pooled_bytes=q.pooled_bytes,
        request_s=request_s,
        request_update_s=request_s,
        reply_s=request_s,
        reply_update_s=request_s,
        lookup_s=share * server_rows_s,
        update_s=(1.0 - share) * server_rows_s,
        gather_s=profile[GATHERED_SUM] * summing_s(at, q) / servers,
        distinct_in_step=q.step_rows / q.rows,
        dense_update_s=dense_s,
        slice_bytes=q.slice_bytes,
        snapshot_s=profile["server.snapshot_pause_s"],
        rank_message_s=rank_message_s,
        meeting_message_s=at[MEETING],
        take_samples_s=rank_message_s + rank_byte_s * q.samples_bytes,
        take_pooled_s=rank_message_s + rank_byte_s * q.pooled_bytes,
        send_gradients_s=rank_message_s + rank_byte_s * q.pooled_bytes,
        train_s=(stage["train"] - optimizer_s) * (1.0 + (profile[TRAINING_TOGETHER] if reduces(scenario) else 0.0)),
        reduce_s=_reduce_s(scenario, at, q),
        optimizer_s=optimizer_s,
        exchange_s=exchange_s / (2.0 * servers),
    )


@dataclass(frozen=True, slots=True)
class _Paced:
    """A profile whose constants take `factors` times longer, are then without what sleeping costs, and take `paces` times longer again."""

    profile: Constants
    factors: Mapping[str, float]
    slept_s: Mapping[str, float]
    paces: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return max(0.0, self.profile[name] * self.factors.get(name, 1.0) - self.slept_s.get(name, 0.0)) * self.paces.get(name, 1.0)


def _at_pace(scenario: Scenario, profile: Profile, q: Quantities, pace: float) -> Constants:
    """Return the constants at a pace of the machine, for batches of this footprint, beside idle cores."""
    of_stages, stages = stage_paces(profile, q, pace), stage_terms(q)
    paces = {name: of_stages[stage] for stage, terms in stages.items() for name in terms}
    paces |= {"host.loader.draw_s_per_id": of_stages["loader"]}
    paces |= dict.fromkeys(SUMMING, of_stages["server"])
    paces |= {name: pace for kind in REDUCTIONS.values() for name in reduction_terms(q, kind)}
    paces |= {sleep_cost(stage): of_stages[stage] for stage in STAGE_OF_ROLE.values()}
    factors = {}
    if is_crowded(scenario):
        factors = {name: profile[crowd_idle(stage)] for stage, terms in stages.items() for name in terms if is_fixed(name)}
    if gathers(scenario):
        factors[_REQUEST] *= 1.0 + other_ranks(q) * (profile[GATHERED_REQUEST] - 1.0)
    return _Paced(profile, factors, _slept_s(profile, q), paces)


def _slept_s(profile: Profile, q: Quantities) -> dict[str, float]:
    """Return by constant what of it the usual sleeps of its thread cost, which are counted as they happen."""
    per = {
        stage: [profile[sleep_cost(stage)] * profile[name] * count for name, count in sleep_terms(stage, q).items()]
        for stage in STAGE_OF_ROLE.values()
    }
    return {
        "host.loader.s_per_batch": sum(per["loader"]),
        "host.worker.s_per_batch": per["worker rest"][0],
        "host.worker.s_per_server": sum(per["worker rest"][1:]) / q.servers,
        _REQUEST: sum(per["server"]) / (2.0 * q.servers),
        "host.rank.s_per_batch": sum(per["rank rest"]),
    }


def _only(terms: Terms, *prefixes: str) -> Terms:
    return {name: count for name, count in terms.items() if name.startswith(prefixes)}


def _drawing_s(scenario: Scenario, profile: Constants, q: Quantities) -> float:
    """Return what drawing a synthetic batch costs; a batch of a few distinct ones is in memory."""
    data = scenario.workload.data
    return 0.0 if data.kind != "synthetic" or data.distinct_batches is not None else profile["host.loader.draw_s_per_id"] * q.ids


def _reduce_s(scenario: Scenario, profile: Constants, q: Quantities) -> float:
    """Return one rank's processor time in the all-reduce, measured on a crowded machine."""
    return stage_seconds(profile, reduction_terms(q, REDUCTIONS[scenario.schedule.mode])) if reduces(scenario) else 0.0
