"""What a batch costs on a machine that runs every role for real: processor seconds of each thread, bytes of each message.

The constants are those that `persia calibrate` measures (simulator/calibration); the quantities they multiply are here, in
one place for both: calibration fits constants to `quantities`, a simulation multiplies them by the same numbers.

Shapes: B samples, F features, S servers; N ID occurrences, U unique rows, P pooled values of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from persia.scenario import Scenario
from simulator.costs import dense_flops_per_sample, dense_layer_parameters, dense_layer_widths
from simulator.popularity import Popularity

WIRES = ("fp32", "fp16", "fp16-scaled")
_BYTES_PER_VALUE = {"fp32": 4.0, "fp16": 2.0, "fp16-scaled": 2.0 + 4.0 / 256}
HEADER_BYTES = 128.0  # of a message, about: header and array descriptions
_ID_BYTES, _OFFSET_BYTES, _KEY_BYTES, FLOAT_BYTES = 8.0, 4.0, 8.0, 4.0
_L2_VALUES = 131_072.0  # float32 values that half a megabyte of cache holds
_TABLE_VALUES = 12.0  # of the hash table in which dedup finds a feature's rows, for each row: 16 bytes a slot, two to four slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """Counts of one batch of one rank."""

    samples: float
    bags: float  # B F
    ids: float
    rows: float  # unique
    step_rows: float  # unique ones of all ranks' batches of a step together
    id_values: float  # elements of all occurrences' rows
    row_values: float  # elements of all unique rows
    pooled_values: float  # what goes to the rank, or comes back as gradients
    dense_values: float  # dense features and labels
    parameters: float  # dense
    flops: float  # forward + backward
    layers: int  # dense
    activations: float  # values that dense layers put out
    servers: int
    ranks: int
    meetings: int  # of all ranks in a step: one message of each to rank 0 and one back
    dense_on_servers: bool  # mode async
    in_step: bool  # ranks, several: each of their steps ends before the next begins
    server_wire: str
    rank_wire: str

    @property
    def pooled_bytes(self) -> float:
        """Return the bytes of the pooled embeddings, or of their gradients."""
        return _BYTES_PER_VALUE[self.rank_wire] * self.pooled_values + HEADER_BYTES

    @property
    def features_bytes(self) -> float:
        """Return the bytes of a batch's IDs and offsets."""
        return _ID_BYTES * self.ids + _OFFSET_BYTES * self.bags + HEADER_BYTES

    @property
    def samples_bytes(self) -> float:
        """Return the bytes of a batch's dense features and labels."""
        return FLOAT_BYTES * self.dense_values + HEADER_BYTES

    @property
    def keys_bytes(self) -> float:
        """Return the bytes that ask one server for its share of the rows."""
        return _KEY_BYTES * self.rows / self.servers + HEADER_BYTES

    @property
    def rows_bytes(self) -> float:
        """Return the bytes of one server's share of the rows."""
        return _BYTES_PER_VALUE[self.server_wire] * self.row_values / self.servers + HEADER_BYTES

    @property
    def slice_bytes(self) -> float:
        """Return the bytes of one server's slice of the dense vector."""
        return FLOAT_BYTES * self.parameters / self.servers + HEADER_BYTES


def quantities(scenario: Scenario) -> Quantities:
    """Return the counts of one batch, expected ones where they are random."""
    samples = float(scenario.workload.batch_size)
    widths = dense_layer_widths(scenario)
    bags = ids = rows = step_rows = id_values = row_values = pooled = 0.0
    for feature in scenario.model.features:
        drawn, popularity = samples * feature.ids_per_sample, Popularity(rows=feature.rows, zipf=feature.zipf)
        unique = feature.count * popularity.expected_unique(drawn)
        bags += samples * feature.count
        ids += feature.count * drawn
        rows += unique
        step_rows += feature.count * popularity.expected_unique(scenario.ranks * drawn)
        id_values += feature.count * drawn * feature.dim
        row_values += unique * feature.dim
        pooled += feature.dim * feature.count * (drawn if feature.pooling == "raw" else samples)
    return Quantities(
        samples=samples,
        bags=bags,
        ids=ids,
        rows=rows,
        step_rows=step_rows,
        id_values=id_values,
        row_values=row_values,
        pooled_values=pooled,
        dense_values=samples * (scenario.model.dense.dense_features + 1),
        parameters=sum(dense_layer_parameters(scenario)),
        flops=dense_flops_per_sample(scenario) * samples,
        layers=len(widths),
        activations=sum(widths) * samples,
        servers=scenario.processes("parameter_server"),
        ranks=scenario.ranks,
        meetings=_meetings(scenario),
        dense_on_servers=scenario.schedule.mode == "async",
        in_step=gathers(scenario) or (reduces(scenario) and scenario.staleness_permits == 1),
        server_wire=scenario.schedule.precision.server_worker,
        rank_wire=scenario.schedule.precision.worker_rank,
    )


def _meetings(scenario: Scenario) -> int:
    """Return how often all ranks meet in a step: at the barrier of mode sync, and to begin a reduction that is emulated."""
    emulated = scenario.simulation.emulated_accelerator is not None
    return gathers(scenario) + (emulated and reduces(scenario))


Terms = Mapping[str, float]  # constant of the profile -> what it multiplies


class Constants(Protocol):
    """Constants by name: a profile, or a mapping."""

    def __getitem__(self, name: str, /) -> float:
        """Return a constant's value."""


def _by_wire(name: str, wire: str, count: float) -> dict[str, float]:
    return {f"{name}.{each}": count if each == wire else 0.0 for each in WIRES}


def cold_share(values: float) -> float:
    """Return the share of accesses to an array of float32 that a core's cache does not serve, 0..1."""
    return values / (values + _L2_VALUES)


def stage_terms(q: Quantities) -> dict[str, Terms]:
    """Return for each stage the constants that make its processor time, and what they multiply: one batch, all servers.

    Stages are named as the spans of a trace are; `... rest` is what the role's own thread does besides: messages, logs.
    """
    cold = q.id_values * cold_share(q.row_values)
    return {
        "loader": {"host.loader.s_per_batch": 1.0, "host.loader.s_per_byte": q.features_bytes + q.samples_bytes},
        "dedup": {
            "host.worker.dedup_s_per_batch": 1.0,
            "host.worker.dedup_s_per_id": q.ids,
            "host.worker.dedup_s_per_cold_id": q.ids * cold_share(_TABLE_VALUES * q.rows * q.samples / q.bags),
            "host.worker.dedup_s_per_row": q.rows,
            "host.worker.dedup_s_per_sorted_id": q.ids if q.servers > 1 else 0.0,
        },
        "pool": {
            "host.worker.pool_s_per_batch": 1.0,
            "host.worker.pool_s_per_bag": q.bags,
            "host.worker.pool_s_per_id": q.ids,
            "host.worker.pool_s_per_id_value": q.id_values,
            "host.worker.pool_s_per_cold_id_value": cold,
            **_by_wire("host.worker.pool_s_per_value", q.rank_wire, q.pooled_values),
        },
        "un-pool": {
            "host.worker.unpool_s_per_batch": 1.0,
            "host.worker.unpool_s_per_bag": q.bags,
            "host.worker.unpool_s_per_id": q.ids,
            "host.worker.unpool_s_per_id_value": q.id_values,
            "host.worker.unpool_s_per_cold_id_value": cold,
            "host.worker.unpool_s_per_row_value": q.row_values,
            **_by_wire("host.worker.unpool_s_per_value", q.rank_wire, q.pooled_values),
        },
        "worker rest": {
            "host.worker.s_per_batch": 1.0,
            "host.worker.s_per_server": float(q.servers),
            "host.worker.s_per_id": q.ids,
            "host.worker.s_per_row": q.rows,
            "host.worker.s_per_pooled_byte": q.pooled_bytes,
            **_by_wire("host.worker.s_per_row_value", q.server_wire, q.row_values),
        },
        "server": {
            "host.server.s_per_request": 2.0 * q.servers,
            "host.server.s_per_row": q.rows,
            **_by_wire("host.server.s_per_value", q.server_wire, q.row_values),
            "host.server.dense_s_per_request": float(q.servers) if q.dense_on_servers else 0.0,
            "host.server.dense_s_per_parameter": q.parameters if q.dense_on_servers else 0.0,
        },
        "train": {
            "host.rank.train_s_per_batch": 1.0,
            "host.rank.train_s_per_layer": float(q.layers),
            "host.rank.train_s_per_activation": q.activations,
            "host.rank.train_s_per_sample": q.samples,
            "host.rank.train_s_per_flop": q.flops,
            "host.rank.optimizer_s_per_parameter": 0.0 if q.dense_on_servers else q.parameters,
            "host.rank.flatten_s_per_parameter": q.parameters if q.dense_on_servers else 0.0,
            **_by_wire("host.rank.train_s_per_value", q.rank_wire, q.pooled_values),
        },
        "rank rest": {
            "host.rank.s_per_batch": 1.0,
            "host.rank.s_per_byte": 2.0 * q.pooled_bytes + q.samples_bytes,
            MEETING: 2.0 * meeting_messages(q),
            "host.rank.exchange_s_per_server": float(q.servers) if q.dense_on_servers else 0.0,
            "host.rank.exchange_s_per_parameter": q.parameters if q.dense_on_servers else 0.0,
        },
        "io": {"host.io.s_per_message": messages(q), "host.io.s_per_byte": bytes_moved(q)},
    }


ARITHMETIC = "host.rank.train_s_per_flop"
"""The constant of what multiplies matrices, which hardly follows the machine's pace: caches serve it."""

MEETING = "host.rank.s_per_meeting_message"
"""The constant of one end of a message by which ranks meet: it carries nothing, and mostly no schedule hears of it."""

RANK_MESSAGES = 7.0
"""What a rank's own thread hears and says for a batch: samples, pooled, trained, pushed; lookup, gradients, committed."""

STAGE_OF_ROLE: Mapping[str, str] = {
    "loader": "loader",
    "embedding_worker": "worker rest",
    "parameter_server": "server",
    "nn_worker": "rank rest",
}
"""What a process's own thread does where it does nothing else."""


ALONE_ERROR, CROWDED_ERROR = "host.prediction_error.alone", "host.prediction_error.crowded"
"""How far predictions of points that were no part of a fit are off, as a relative standard deviation: one batch at a time, and several."""

DRIFT_ERROR = "host.prediction_error.drift"
"""How far they are off together, all that are measured at about one time, as a relative standard deviation: the machine's pace."""


def sleep_cost(stage: str) -> str:
    """Return the constant that holds what it costs a process's own thread to have slept, at the stage of that thread."""
    return f"host.sleep.{identifier(stage)}_s"


def sleep_terms(stage: str, q: Quantities) -> Terms:
    """Return the constants that make how often a process's own thread sleeps where one batch after another passes."""
    prefix, servers = f"host.sleep.{identifier(stage)}", float(q.servers)
    return {f"{prefix}_per_batch": 1.0, f"{prefix}_per_server": servers, f"{prefix}_per_exchange": servers if q.dense_on_servers else 0.0}


def identifier(stage: str) -> str:
    """Return a stage as it stands in the name of a constant."""
    return stage.replace(" ", "_").replace("-", "_")


def reduces(scenario: Scenario) -> bool:
    """Return whether ranks reduce their dense gradients."""
    return scenario.ranks > 1 and scenario.schedule.mode in REDUCTIONS


def gathers(scenario: Scenario) -> bool:
    """Return whether servers sum the gradients of several ranks before they apply them."""
    return scenario.ranks > 1 and scenario.schedule.mode == "sync"


def is_crowded(scenario: Scenario) -> bool:
    """Return whether several batches are under way at once."""
    return scenario.ranks > 1 or scenario.staleness_permits > 1


def messages(q: Quantities) -> float:
    """Return the messages of a batch.

    Features, samples, credit, lookup, pooled, gradients, pushed, committed; four with each server, in mode async six; and those by
    which ranks meet.
    """
    return 8.0 + (6.0 if q.dense_on_servers else 4.0) * q.servers + meeting_messages(q)


def meeting_messages(q: Quantities) -> float:
    """Return a batch's part of the messages by which all ranks meet: one of each to rank 0, one back."""
    return 2.0 * q.meetings * (q.ranks - 1) / q.ranks


def bytes_moved(q: Quantities) -> float:
    """Return the bytes of all messages of a batch."""
    exchanged = 2.0 * q.servers * q.slice_bytes if q.dense_on_servers else 0.0
    return q.features_bytes + q.samples_bytes + 2.0 * q.pooled_bytes + q.servers * (2.0 * q.keys_bytes + 2.0 * q.rows_bytes) + exchanged


def stage_seconds(profile: Constants, terms: Terms) -> float:
    """Return the seconds of a stage."""
    return sum(profile[name] * count for name, count in terms.items() if count)


TRAINING_TOGETHER = "host.reduce.of_training"
"""The constant that says which part of its training longer ranks train that reduce their gradients: they all train at the same time."""

GATHERED_REQUEST, GATHERED_SUM = "host.gathered.request", "host.gathered.sum"
"""Factors of what servers take that gather a step: of a request of all its batches but one, and of the sum, measured alone."""

_SUM_PER_ROW, _SUM_PER_VALUE = SUMMING = ("host.server.gather_s_per_row", "host.server.gather_s_per_value")


def summing_s(profile: Constants, q: Quantities) -> float:
    """Return what summing a step's gradients adds for each of its batches, in all servers, alone."""
    return profile[_SUM_PER_ROW] * q.rows + profile[_SUM_PER_VALUE] * q.row_values


REDUCTIONS: Mapping[str, str] = {"sync": "after_backward", "naive-hybrid": "after_backward", "hybrid": "overlapped"}
"""Modes whose ranks reduce their dense gradients, and the kind of that."""


def reduction_terms(q: Quantities, kind: str) -> Terms:
    """Return the constants that make one rank's processor time in an all-reduce, and what they multiply.

    A ring moves 2 (R - 1) / R of the gradient through each rank, in 2 (R - 1) hops.
    """
    hops = 2.0 * (q.ranks - 1)
    return {
        f"host.reduce.{kind}_s_per_step": 1.0,
        "host.reduce.s_per_hop": hops,
        "host.reduce.s_per_byte": FLOAT_BYTES * q.parameters * hops / q.ranks,
    }
