"""`simulate`: one scenario in, one typed result out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from persia.scenario import Profile, Scenario, load_catalog, load_profile, load_scenario, scenario_digest
from persia.scenario.errors import Position, error_at
from persia.scenario.limits import run_header
from persia.schedule.log import DigestLog, FileLog, Header
from persia.schedule.modes import Mode
from simulator.bottleneck import Evidence, find_bottleneck
from simulator.check import assumptions, check
from simulator.driving import Driving
from simulator.engine import new_engine
from simulator.hardware import Cluster
from simulator.host_simulation import HostSimulation
from simulator.popularity import Popularity, mixed_row_staleness
from simulator.price import cost, cross_zone_bytes_per_batch
from simulator.recorder import CUT_EVERY, Window
from simulator.result import (
    Interval,
    LinkLoad,
    SimulationResult,
    StalenessReport,
    StepPart,
    StepTime,
    Throughput,
)
from simulator.simulation import Simulation
from simulator.statistics import replication_interval, staleness_from_histogram, throughput_interval, warmup_length
from simulator.uncertainty import predict
from simulator.utilisation import utilisation

_FEWEST_STEPS = 10  # the scenario's own limit: fewer make no interval
_STEPS_BEFORE_INTERVAL = 100
_LOOK_EVERY = 50
_SPAN_STEPS = range(24, 30)

Progress = Callable[[float], None]
Source = str | Path | Mapping[str, Any] | Scenario


def simulate(
    source: Source,
    *,
    overrides: Sequence[str] = (),
    steps: int | None = None,
    seed: int | None = None,
    log: TextIO | None = None,
    check_invariants: bool = False,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate a scenario (a path, a packaged name, a mapping or a Scenario) and return what it says.

    Args:
        source: the scenario.
        overrides: `path=value` settings, applied to a path, name or mapping.
        steps: steps to simulate, warm-up included; None takes the scenario's, and where that is null too, runs until the
            95 % interval of throughput is within `simulation.interval_target`.
        seed: seed of every random stream; None takes the scenario's.
        log: a text file to which the event log is written, one JSON line an entry.
        check_invariants: check the core's invariants after every event (about five times slower).
        progress: called with the fraction done, 0..1.

    Raises:
        ScenarioError: the scenario is not valid.
        Infeasible: the model does not fit, or a machine type has no known network rate.
        ValueError: fewer than ten steps are asked for.
    """
    if steps is not None and steps < _FEWEST_STEPS:
        raise ValueError(f"a simulation needs at least {_FEWEST_STEPS} steps, not {steps}")
    scenario = source if isinstance(source, Scenario) else load_scenario(source, overrides)
    if steps is None:
        steps = scenario.simulation.steps
    first_seed = scenario.simulation.seed if seed is None else seed
    check(scenario).raise_if_infeasible()
    replications = scenario.simulation.replications
    runs = []
    for replication in range(replications):
        part = _part_of(progress, replication, replications)
        runs.append(_run_once(scenario, steps, first_seed + replication, log if replication == 0 else None, check_invariants, part))
    if replications == 1:
        return runs[0]
    return _combine(runs)


def seconds_of_batch(scenario: Scenario) -> float:
    """Simulate a scenario; return the seconds from one batch to the next of all ranks."""
    return scenario.workload.batch_size / simulate(scenario).throughput.samples_per_s.mean


def _part_of(progress: Progress | None, index: int, count: int) -> Progress:
    return (lambda fraction: None) if progress is None else (lambda fraction: progress((index + fraction) / count))


def _combine(runs: Sequence[SimulationResult]) -> SimulationResult:
    """Return the first run with the throughput interval of all replications."""
    interval = replication_interval([run.throughput.samples_per_s.mean for run in runs])
    return runs[0].with_throughput(interval, events=sum(run.events for run in runs), wall_s=sum(run.wall_s for run in runs))


def _check_physics(scenario: Scenario, profile: Profile, cluster: Cluster) -> None:
    """Refuse what a profile cannot tell; raises ScenarioError."""
    at = Position(file=scenario.name)
    machines = max(tier.machines for tier in cluster.tiers.values())
    if profile.machine is not None and machines > 1:
        message = f"the profile {profile.name!r} was measured on one machine, which runs every role; here a tier has {machines:,} machines"
        raise error_at(at, message, "simulate a cluster from a profile such as persia-original, or one machine from this one")
    if profile.machine is None and scenario.simulation.pace is not None:
        message = f"simulation.pace is {scenario.simulation.pace:g}, but the profile {profile.name!r} was not calibrated on a machine"
        raise error_at(at, message, "leave simulation.pace out, or set simulation.profile to one of `persia calibrate`")


def _run_once(
    scenario: Scenario, steps: int | None, seed: int, log_file: TextIO | None, check_invariants: bool, progress: Progress
) -> SimulationResult:
    began_s = time.perf_counter()
    catalog, profile = load_catalog(), load_profile(scenario.simulation.profile)
    cluster = Cluster(scenario, catalog, profile)
    _check_physics(scenario, profile, cluster)
    header = run_header(
        scenario,
        server_threads=cluster.tiers["parameter_server"].threads_per_process,
        worker_threads=cluster.tiers["embedding_worker"].threads_per_process,
    )
    log = DigestLog() if log_file is None else FileLog(log_file, header)
    engine = new_engine(scenario.simulation.engine)
    simulation: Driving = (HostSimulation if profile.machine is not None else Simulation)(
        scenario=scenario,
        catalog=catalog,
        profile=profile,
        engine=engine,
        log=log,
        cluster=cluster,
        header=header,
        seed=seed,
        span_steps=_SPAN_STEPS if steps is None or steps > _SPAN_STEPS.stop else range(steps),
        checked=check_invariants,
    )
    samples_per_step = float(header.rank.world_size * scenario.workload.batch_size)
    stopper = _Stopper(scenario, steps, samples_per_step, simulation, engine.stop, progress)
    simulation.on_step = stopper.on_step
    collects = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and the collector would walk every fact again and again
    try:
        simulation.start()
        events = engine.run()
    finally:
        if collects:
            gc.enable()
    if not stopper.stopped:
        raise RuntimeError(
            f"after {len(simulation.recorder.step_end_s)} steps every process waits for another: a defect, never the scenario"
        )
    return _result(scenario, seed, simulation, header, log.hexdigest(), events, engine.now_s, began_s)


class _Stopper:
    """Ends a run after `steps`, or when the interval is narrow enough; reports how far it is."""

    def __init__(
        self,
        scenario: Scenario,
        steps: int | None,
        samples_per_step: float,
        simulation: Driving,
        stop: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._target = scenario.simulation.interval_target
        self._filling_steps = scenario.staleness_permits
        self._most = scenario.simulation.max_steps if steps is None else steps
        self._automatic = steps is None
        self._samples = samples_per_step
        self._ends_s = simulation.recorder.step_end_s
        self._stop_engine = stop
        self.stopped = False
        self._progress = progress

    def on_step(self, steps: int) -> None:
        """Hear that a step has ended."""
        if steps >= self._most:
            self._stop()
        elif steps % _LOOK_EVERY == 0:
            self._look(steps)

    def _stop(self) -> None:
        self.stopped = True
        self._stop_engine()

    def _look(self, steps: int) -> None:
        if not self._automatic:
            self._progress(steps / self._most)
        elif steps >= _STEPS_BEFORE_INTERVAL:
            _, interval = measured(self._ends_s, self._samples, filling_steps=self._filling_steps)
            half = (interval.high - interval.low) / (2.0 * interval.mean)
            if half <= self._target:
                self._stop()
            self._progress(min(1.0, max(steps / self._most, (self._target / half) ** 2 if half > 0.0 else 1.0)))


def measured(step_end_s: Sequence[float], samples_per_step: float, *, filling_steps: int = 0) -> tuple[int, Interval]:
    """Return the warm-up's length in steps, one more than a multiple of five, and the throughput after it.

    The first `filling_steps` are warm-up whatever the gaps between steps say, if the run is long enough: with so many permits the
    batches of these steps were looked up before any was updated, so that they are less stale than all later ones.
    """
    gaps_s = np.diff(np.asarray(step_end_s))
    filled = -(-filling_steps // CUT_EVERY) * CUT_EVERY
    warmup = min(max(warmup_length(gaps_s), filled), max(0, len(gaps_s) - CUT_EVERY) // CUT_EVERY * CUT_EVERY)
    return warmup + 1, throughput_interval(step_end_s[warmup:], samples_per_step)


def step_time(step_end_s: Sequence[float]) -> StepTime:
    """Return the quantiles of the time between steps that end at these times, at least two."""
    p50, p95, p99 = (float(value) for value in np.quantile(np.diff(np.asarray(step_end_s)), (0.5, 0.95, 0.99)))
    return StepTime(p50=p50, p95=p95, p99=p99)


def _result(
    scenario: Scenario, seed: int, simulation: Driving, header: Header, digest: str, events: int, now_s: float, began_s: float
) -> SimulationResult:
    recorder, cluster, batch = simulation.recorder, simulation.cluster, simulation.batch
    ranks = header.rank.world_size
    samples_per_step = float(ranks * scenario.workload.batch_size)
    warmup, throughput = measured(recorder.step_end_s, samples_per_step, filling_steps=scenario.staleness_permits)
    window = recorder.since(warmup)
    catalog, profile = load_catalog(), load_profile(scenario.simulation.profile)
    parts = step_parts(window, simulation, header)
    lane_s = float(sum(window.parts.values())) - window.parts["waiting for embeddings"]
    emulated = simulation.dense.emulated is not None
    used = utilisation(window.busy, window.seconds, lane_s, cluster, batch, profile, emulated)
    latency = mean_latency(window)
    report = check(scenario)
    batches_per_s = throughput.mean / scenario.workload.batch_size
    egress = cross_zone_bytes_per_batch(scenario, batch) * batches_per_s
    return SimulationResult(
        scenario=scenario.name,
        scenario_digest=scenario_digest(scenario),
        digest=digest,
        seed=seed,
        mode=scenario.schedule.mode,
        fidelity=scenario.simulation.fidelity,
        engine=scenario.simulation.engine,
        ranks=ranks,
        batch_size=scenario.workload.batch_size,
        steps=len(recorder.step_end_s),
        warmup_steps=warmup,
        throughput=Throughput(samples_per_s=throughput),
        step_time_s=step_time(recorder.step_end_s[warmup - 1 :]),
        staleness=_staleness(scenario, window, simulation.servers_weight),
        utilisation=used,
        bottleneck=find_bottleneck(
            Evidence(
                parts=parts,
                utilisation=used,
                lookup_s=latency["lookup"],
                push_s=latency["push"],
                permits=header.rank.staleness_permits,
                overlapped=Mode(scenario.schedule.mode) is not Mode.SYNC,
                accelerator=emulated or cluster.tiers["nn_worker"].machine.accelerator is not None,
                machines=cluster.tiers["nn_worker"].machines,
            )
        ),
        memory=report.memory,
        cost=cost(scenario, catalog, throughput.mean, egress),
        step_parts=parts,
        latency_s=latency,
        unique_ids_per_batch=batch.unique,
        batch_unique_indices_rate=batch.unique / batch.ids,
        hit_rate=batch.hit_rate,
        links=_links(simulation, used),
        assumptions=assumptions(scenario, catalog, profile),
        events=events,
        simulated_s=now_s,
        wall_s=time.perf_counter() - began_s,
        spans=recorder.spans,
        emulated=simulation.dense.emulated,
        prediction=None if profile.machine is None else predict(scenario, profile, throughput.mean),
        beside=simulation.beside(),
        sleeps=simulation.sleeps(),
    )


def step_parts(window: Window, simulation: Driving, header: Header) -> list[StepPart]:
    """Return the mean parts of a rank's step; where nothing overlaps, the wait for embeddings is taken apart."""
    rank_steps = window.steps * header.rank.world_size
    mean = {part: seconds / rank_steps for part, seconds in window.parts.items()}
    mean["forward + backward"] = mean.pop("forward") + mean.pop("backward")
    if header.rank.barrier_every_steps == 1:
        wait_s = mean.pop("waiting for embeddings")
        latency = mean_latency(window)
        mean = {"lookup": latency["lookup"], **mean, "push": latency["push"]}
        mean["barrier"] = max(0.0, wait_s - latency["lookup"] - latency["push"])
    step_s = sum(mean.values())
    order = ("waiting for embeddings", "lookup", "host work", "forward + backward", "waiting for the slowest rank", "exposed all-reduce")
    names = [name for name in (*order, "optimizer", "push", "barrier") if name in mean]
    return [StepPart(part=name, seconds=mean[name], share=mean[name] / step_s) for name in names]


def mean_latency(window: Window) -> dict[str, float]:
    """Return the mean seconds of a lookup and of a push, as a rank sees them."""
    lookup_s, lookups, push_s, pushes = window.latency
    return {"lookup": lookup_s / max(1.0, lookups), "push": push_s / max(1.0, pushes)}


def _staleness(scenario: Scenario, window: Window, weight: int) -> StalenessReport:
    """Return the three histograms; version staleness counts every (batch, server)."""
    version = {value: float(count * weight) for value, count in window.version.items()} or {0: 1.0}
    draws = scenario.workload.batch_size
    features = [
        (Popularity(rows=each.rows, zipf=each.zipf), draws * each.ids_per_sample, float(each.count)) for each in scenario.model.features
    ]
    return StalenessReport(
        version=staleness_from_histogram(version),
        in_flight=staleness_from_histogram({value: float(count) for value, count in window.in_flight.items()} or {0: 1.0}),
        row=staleness_from_histogram(mixed_row_staleness(version, features)),
    )


def _links(simulation: Driving, used: Mapping[str, Mapping[str, float]]) -> list[LinkLoad]:
    """Return each tier's network cards as one loaded link of the map, in Gbit/s of one machine."""
    cluster = simulation.cluster
    links = []
    for name, tier in cluster.tiers.items():
        busy = max(used[name].get("nic_tx", 0.0), used[name].get("nic_rx", 0.0))
        if tier.host == name and not cluster.one_machine:
            links.append(LinkLoad(source=name, target=tier.zone, gbps=tier.nic_bytes_per_s * 8e-9, utilisation=busy))
    return links
