"""What would make a model fit into the parameter servers: one change at a time, each computed and then checked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from persia.scenario import Scenario
from simulator.rows import Rows, kept_rows, machine_bytes, total_bytes

MOST_MACHINES = 100_000
WIDEST_ROW = 65_536
DIMS_TRIED = 64  # fewer, wider rows spread less evenly, so that the first guess may be a little short


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """What the rows must fit into: the present machines, and the bytes each has for rows."""

    kinds: Sequence[Rows]
    machine_type: str
    machines: int
    processes_per_machine: int
    bytes_per_machine: float
    overhead: float

    def holds(self, kinds: Sequence[Rows], machines: int | None = None) -> bool:
        """Return whether rows fit, on these machines or on another number of them."""
        needed = machine_bytes(kinds, machines or self.machines, self.processes_per_machine, self.overhead)
        return needed <= self.bytes_per_machine

    @property
    def spread_bytes(self) -> float:
        """Return the bytes of rows that all machines hold together, after the imbalance of the present rows."""
        mean = total_bytes(self.kinds, self.overhead) / self.machines
        fullest = machine_bytes(self.kinds, self.machines, self.processes_per_machine, self.overhead)
        return self.machines * self.bytes_per_machine * mean / fullest


def server_remedies(scenario: Scenario, machine_type: str, bytes_per_machine: float, overhead: float) -> tuple[str, ...]:
    """Return what would make the rows fit, where `bytes_per_machine` is what each machine has for rows.

    More machines; fewer bytes a parameter; one accumulator a row; wider and so fewer rows at the same number of parameters;
    fewer parameters; fewer rows kept in memory. A change that cannot help is not among them.
    """
    if bytes_per_machine <= 0.0:
        return (f"{machine_type} has no memory left for rows: take larger machines",)
    tier = scenario.tier("parameter_server")
    room = _Room(
        kinds=kept_rows(scenario),
        machine_type=machine_type,
        machines=tier.count,
        processes_per_machine=tier.processes_per_machine,
        bytes_per_machine=bytes_per_machine,
        overhead=overhead,
    )
    found = (_more_machines(room), _fewer_bytes(room), _smaller_state(room), _wider_rows(room), *_fewer_rows(scenario, room))
    return tuple(remedy for remedy in found if remedy is not None)


def _more_machines(room: _Room) -> str | None:
    """Return the least number of machines of the present type that fits."""
    counts = range(max(1, ceil(total_bytes(room.kinds, room.overhead) / room.bytes_per_machine)), MOST_MACHINES + 1)
    place = bisect_left(counts, True, key=lambda machines: room.holds(room.kinds, machines))
    if place == len(counts):
        return None
    machines = counts[place]
    return f"take {machines:,} {room.machine_type} instead of {room.machines:,}"


def _fewer_bytes(room: _Room) -> str | None:
    """Return two bytes a parameter if that fits, with the most bytes that would."""
    present = max(kind.bytes_per_parameter for kind in room.kinds)
    if present <= 2 or not room.holds([replace(kind, bytes_per_parameter=2.0) for kind in room.kinds]):
        return None
    none = total_bytes([replace(kind, bytes_per_parameter=0.0) for kind in room.kinds], room.overhead)
    one = total_bytes([replace(kind, bytes_per_parameter=1.0) for kind in room.kinds], room.overhead) - none
    most = floor(100.0 * (room.spread_bytes - none) / one) / 100.0
    return f"store a parameter in 2 bytes instead of {present:g}: at most {most:.2f} bytes a parameter fit"


def _smaller_state(room: _Room) -> str | None:
    """Return one accumulator a row instead of one or two a parameter, if that fits."""
    wide = [kind.optimizer for kind in room.kinds if kind.optimizer in ("adagrad", "adam")]
    rowwise = [replace(kind, optimizer="rowwise-adagrad") if kind.optimizer in wide else kind for kind in room.kinds]
    if not wide or not room.holds(rowwise):
        return None
    return f"use the optimizer rowwise-adagrad instead of {' and '.join(dict.fromkeys(wide))}: 4 bytes of state a row"


def _wider_rows(room: _Room) -> str | None:
    """Return the smallest widening of rows, at the same number of parameters, that fits.

    Rows k times as wide are 1 / k as many: parameters stay, what a row costs beside them falls to 1 / k.
    """
    per_row = sum(kind.rows * (kind.row_bytes(room.overhead) - replace(kind, dim=0.0).row_bytes(room.overhead)) for kind in room.kinds)
    beside = total_bytes(room.kinds, room.overhead) - per_row
    if per_row >= room.spread_bytes:
        return None
    widest = max(kind.dim for kind in room.kinds)
    least = ceil(widest * beside / (room.spread_bytes - per_row))
    for dim in range(least, min(least + DIMS_TRIED, WIDEST_ROW + 1)):
        if room.holds([replace(kind, rows=kind.rows * widest / dim, dim=kind.dim * dim / widest) for kind in room.kinds]):
            break
    else:
        return None
    others = " (all dims in proportion)" if len({kind.dim for kind in room.kinds}) > 1 else ""
    return f"make rows wider at the same number of parameters: dim {dim:,} instead of {widest:g} is the least that fits{others}"


def _fewer_rows(scenario: Scenario, room: _Room) -> tuple[str, str]:
    """Return the most parameters that fit as they are stored now, and the share of rows that could stay in memory."""
    share = room.spread_bytes / total_bytes(room.kinds, room.overhead)
    while not room.holds([replace(kind, rows=kind.rows * share) for kind in room.kinds]):
        share *= 0.999
    parameters = float(sum(feature.count * feature.kept_rows * feature.dim for feature in scenario.model.features))
    percent = floor(1000.0 * share) / 10.0
    return (
        f"train at most {_trillions(parameters * share)} parameters instead of {_trillions(parameters, down=False)}",
        f"keep at most {percent:g} % of these rows in memory (model.features[].resident_rows) and let the servers evict the rest",
    )


def _trillions(parameters: float, *, down: bool = True) -> str:
    """Return a number of parameters in words, rounded down to four digits where it is a limit."""
    value, unit = next(
        ((parameters / size, unit) for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if parameters >= size), (parameters, "")
    )
    digits = 10.0 ** (3 - len(str(int(value))) + 1)
    value = floor(value * digits + 1e-9) / digits if down else value
    return f"{value:,.4g} {unit}".strip()
