"""A small scenario derived from a large one, for a real run on one small machine: the same schedule and shape, smaller sizes.

Every rule changes plain data in place, as `Scenario.model_dump` gives it, and yields a sentence for each value it changes:
`what: before -> after (rule)`.  What is small enough already stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from persia.scenario.base import TIER_NAMES
from persia.scenario.errors import Position, error_at, shown
from persia.scenario.load import load_scenario
from persia.scenario.scenario import Scenario
from persia.scenario.shape import parse_path

Plain = dict[str, Any]

_NAME_MAX: Final = 100  # characters, as base.Name
_LEFT_OUT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The most of everything that a scale allows, and the machine on which all of it runs.

    `processes` are those of each tier.  `rows` are those of all tables together; `rows_min` is what no table is shrunk
    below.  A table that evicts keeps at least the IDs of `resident_batches` batches.
    """

    machine: Mapping[str, Any]
    processes: Mapping[str, int]
    threads: int = 1
    features: int = 200
    dim: int = 32
    ids_per_sample: float = 50.0
    rows_per_feature: int = 50_000
    rows: int = 2_000_000
    rows_min: int = 100
    resident_batches: int = 20
    dense_parameters: int = 1_000_000
    batch_size: int = 256
    samples: int = 500_000
    held_out_samples: int = 20_000
    timeout_min_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A scenario made small, and a sentence for every value that differs from the large one's."""

    scenario: Scenario
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """What a rule needs: the scale's name and sizes, the data as it was and as it becomes."""

    scale: str
    size: Size
    before: Plain
    plain: Plain = field(default_factory=dict)

    def put(self, path: str, value: object, why: str) -> Iterator[str]:
        """Set the value at a path; yield the sentence, if that is a change."""
        *above, last = parse_path(path)
        place = _value(self.plain, tuple(above))
        if place[last] != value:
            yield f"{path}: {_said(place[last])} -> {_said(value)} ({why})"
            place[last] = value

    def cap(self, path: str, most: float, unit: str) -> Iterator[str]:
        """Lower the number at a path to `most`; null stays."""
        value = _value(self.plain, parse_path(path))
        if value is not None and value > most:
            yield from self.put(path, most, f"at most {_said(most)} {unit}".rstrip())


def scale_down(scenario: Scenario, name: str) -> Scaled:
    """Return a scenario that one small machine can run for real, under the same schedule, and the rules that changed it.

    A scenario that has been scaled down already comes back as it is.

    Raises:
        ScenarioError: there is no scale of this name.
    """
    if name not in SCALES:
        message = f"unknown scale {shown(name)}; expected one of: {', '.join(SCALES)}"
        raise error_at(Position(file="--scale"), message, "Write for example --scale laptop.")
    before: Plain = scenario.model_dump(mode="json", by_alias=True)
    change = _Change(name, SCALES[name], before, deepcopy(before))
    rules = tuple(sentence for rule in _RULES for sentence in rule(change))
    return Scaled(scenario=load_scenario(change.plain) if rules else scenario, rules=rules)


# --- the rules, in the order in which they are asked --------------------------------------------------------------


def _feature_counts(change: _Change) -> Iterator[str]:
    """Groups keep their order, and their shares as far as one feature each allows."""
    features = change.plain["model"]["features"]
    more = sum(feature["count"] - 1 for feature in features)
    most = change.size.features
    if more + len(features) <= most:
        return
    share = Fraction(max(0, most - len(features)), more) if more else Fraction(0)
    for index, feature in enumerate(features):
        count = 1 + int((feature["count"] - 1) * share)
        yield from change.put(f"model.features[{index}].count", count, f"all groups by one factor: at most {most} features")


def _features(change: _Change) -> Iterator[str]:
    """Narrower rows and shorter bags."""
    for index in range(len(change.plain["model"]["features"])):
        yield from change.cap(f"model.features[{index}].dim", change.size.dim, "")
        yield from change.cap(f"model.features[{index}].ids_per_sample", change.size.ids_per_sample, "IDs")
    yield from change.cap("model.dense.projection_dim", change.size.dim, "")


def _batches(change: _Change) -> Iterator[str]:
    """Fewer samples at once, in all, and held out."""
    size = change.size
    yield from change.cap("workload.batch_size", size.batch_size, "samples a rank")
    yield from change.cap("workload.samples", size.samples, "samples in all")
    yield from change.cap("workload.data.held_out_samples", size.held_out_samples, "samples")


def _rows(change: _Change) -> Iterator[str]:
    """All tables shrink by one factor, so that large ones stay larger than small ones."""
    features, size = change.plain["model"]["features"], change.size
    largest = max(feature["rows"] for feature in features)
    total = sum(feature["count"] * feature["rows"] for feature in features)
    if largest <= size.rows_per_feature and total <= size.rows:
        return
    least = min(size.rows_min, size.rows // (2 * sum(feature["count"] for feature in features)))
    reserved = sum(feature["count"] * min(feature["rows"], least) for feature in features)
    share = min(Fraction(size.rows_per_feature, largest), Fraction(size.rows - reserved, total))
    why = f"all tables by one factor: at most {size.rows_per_feature:,} rows each, {size.rows:,} in all, no table below {least:,}"
    for index, feature in enumerate(features):
        before = feature["rows"]
        rows = max(min(before, least), int(before * share))
        yield from change.put(f"model.features[{index}].rows", rows, why)
        if feature["resident_rows"] is not None:
            yield from _resident_rows(change, index, before)


def _resident_rows(change: _Change, index: int, rows_before: int) -> Iterator[str]:
    """A table that evicts goes on evicting, but not the rows of batches under way."""
    feature, batches = change.plain["model"]["features"][index], change.size.resident_batches
    in_flight = int(batches * change.plain["workload"]["batch_size"] * feature["ids_per_sample"])
    share = Fraction(min(feature["resident_rows"], rows_before), rows_before)
    resident = min(feature["rows"], max(1, in_flight, int(feature["rows"] * share)))
    why = f"the same share of the rows, at least the IDs of {batches} batches"
    yield from change.put(f"model.features[{index}].resident_rows", resident, why)


def _layers(change: _Change) -> Iterator[str]:
    """All hidden layers are divided by one power of two."""
    most, layers = change.size.dense_parameters, change.plain["model"]["dense"]["layers"]
    before = _dense_parameters(change.plain, layers)
    small, halvings = layers, 0
    while _dense_parameters(change.plain, small) > most and max(small) > 1:
        halvings += 1
        small = [max(1, width >> halvings) for width in layers]
    after = _dense_parameters(change.plain, small)
    why = f"divided by {1 << halvings}: {before:,} -> {after:,} dense parameters, at most {most:,}"
    yield from change.put("model.dense.layers", small, why)


def _timeouts(change: _Change) -> Iterator[str]:
    """A small machine pauses for longer than a cluster does."""
    least_s = change.size.timeout_min_s
    for name in ("request_timeout", "buffer_expiry"):
        if change.plain["schedule"][name] < least_s:
            yield from change.put(f"schedule.{name}", least_s, f"at least {_said(least_s)} seconds")


def _machines(change: _Change) -> Iterator[str]:
    """One small machine without accelerators hosts all tiers."""
    cluster, size = change.plain["cluster"], change.size
    if _is_one_small_machine(cluster, size):
        return
    names = sorted({tier["machine_type"] for tier in cluster["tiers"].values() if tier["machine_type"] is not None})
    cluster["machine_types"] = {change.scale: dict(size.machine)}
    for name, tier in cluster["tiers"].items():
        own = name == "nn_worker"
        processes = tier["count"] * tier["processes_per_machine"]  # more than one machine may have; the next rule lowers it
        tier |= {"machine_type": change.scale if own else None, "hosted_on": None if own else "nn_worker"}
        tier |= {"count": 1, "processes_per_machine": processes, "zone": None, "nic_tier1": False}
    yield (
        f"cluster: {', '.join(names)} -> {change.scale} (one machine of {size.machine['vcpus']} cores and "
        f"{_said(size.machine['ram_gib'])} GiB for all tiers, without accelerators)"
    )


def _is_one_small_machine(cluster: Plain, size: Size) -> bool:
    owners = [tier for tier in cluster["tiers"].values() if tier["machine_type"] is not None]
    machine = cluster["machine_types"].get(owners[0]["machine_type"])
    if len(owners) > 1 or owners[0]["count"] > 1 or machine is None:
        return False
    return machine["accelerator"] is None and all(machine[figure] <= size.machine[figure] for figure in ("vcpus", "ram_gib"))


def _processes(change: _Change) -> Iterator[str]:
    """Few processes of every tier, of few threads each."""
    tiers, threads = change.plain["cluster"]["tiers"], change.size.threads
    for name in TIER_NAMES:
        most = change.size.processes[name]
        if tiers[name]["processes_per_machine"] > most:
            yield f"cluster.tiers.{name}: {tiers[name]['processes_per_machine']:,} processes -> {most} (at most {most})"
            tiers[name]["processes_per_machine"] = most
    before = ", ".join(_said(tiers[name]["threads_per_process"]) for name in TIER_NAMES)
    if any(tier["threads_per_process"] != threads for tier in tiers.values()):
        yield f"cluster.tiers.*.threads_per_process: {before} -> {threads} (every process has {threads})"
    for tier in tiers.values():
        tier["threads_per_process"] = threads


def _exceptions(change: _Change) -> Iterator[str]:
    """What was said about single machines and links means nothing on one machine."""
    yield from _without(change, "cluster.network.links", "all tiers are on one machine")
    yield from _without(change, "simulation.slow_machines", "there is one machine")


def _without(change: _Change, path: str, why: str) -> Iterator[str]:
    *above, last = parse_path(path)
    place = _value(change.plain, tuple(above))
    if place[last]:
        yield f"{path}: {len(place[last])} -> none ({why})"
        place[last] = []


def _assumptions(change: _Change) -> Iterator[str]:
    """An argument for a value that is no longer there would mislead; the new machine has its own."""
    before = change.plain["assumptions"]
    kept = [assumption for assumption in before if _still_holds(change, parse_path(assumption["path"]))]
    if len(kept) < len(before):
        yield f"assumptions: {len(before)} -> {len(kept)} (those about values that changed are left out)"
    new = f"cluster.machine_types.{change.scale}"
    if change.plain["cluster"]["machine_types"] != change.before["cluster"]["machine_types"]:
        why = "Stands for any small machine; replace its figures by your own"
        kept.append({"path": new, "why": why, "source": "choice", "evidence": "M"})
    change.plain["assumptions"] = kept


def _still_holds(change: _Change, path: tuple[str | int, ...]) -> bool:
    if path[:2] == ("catalog", "machines") and len(path) > 2:
        return path[2] in [tier["machine_type"] for tier in change.plain["cluster"]["tiers"].values()]
    if path[:2] == ("catalog", "accelerators"):
        return False
    if path[0] in ("catalog", "profile"):
        return True
    return bool(_value(change.before, path) == _value(change.plain, path))


def _name(change: _Change) -> Iterator[str]:
    """The new scenario has a name of its own; its description says what it is, where it differs."""
    name, ending = change.plain["name"], f"-{change.scale}"
    if change.plain != change.before:
        change.plain["description"] = f"{name}, scaled down to one small machine"
    if not name.endswith(ending):
        yield from change.put("name", name[: _NAME_MAX - len(ending)] + ending, "a scaled scenario has a name of its own")


_RULES: tuple[Callable[[_Change], Iterator[str]], ...] = (
    _feature_counts,
    _features,
    _batches,
    _rows,
    _layers,
    _timeouts,
    _machines,
    _processes,
    _exceptions,
    _assumptions,
    _name,
)


# --- helpers ------------------------------------------------------------------------------------------------------


def _dense_parameters(plain: Plain, layers: list[int]) -> int:
    """Return the parameters of the dense network with these hidden layers, weights and biases, as the simulator counts them."""
    features, dense = plain["model"]["features"], plain["model"]["dense"]
    width = dense["projection_dim"]
    dims = [feature["dim"] for feature in features]
    slots = [each["count"] * (round(each["ids_per_sample"]) if each["pooling"] == "raw" else 1) for each in features]
    inputs = dense["dense_features"] + sum(slot * (width or dim) for slot, dim in zip(slots, dims, strict=True))
    pairs: list[tuple[int, int]] = []
    if dense["architecture"] == "dlrm":
        vectors = sum(slots) + 1
        below = width or dims[0]
        pairs += itertools.pairwise([dense["dense_features"], layers[0], below])
        inputs = below + vectors * (vectors - 1) // 2
    pairs += itertools.pairwise([inputs, *layers, 1])
    projections = sum(dim * width for dim in set(dims)) if width else 0
    return int(projections + sum(a * b + b for a, b in pairs))


def _value(plain: Any, path: tuple[str | int, ...]) -> Any:
    """Return what is at a path of plain data, or a mark that nothing is."""
    here = plain
    for step in path:
        if isinstance(here, dict) and str(step) in here:
            here = here[str(step)]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            return _LEFT_OUT
    return here


def _said(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return f"{value:,.12g}" if isinstance(value, float) else f"{value:,}"
    return value if isinstance(value, str) else shown(value)


_LAPTOP: Final[Mapping[str, Any]] = {
    "vcpus": 8,
    "ram_gib": 32.0,
    "nic": 1e9,
    "kubernetes": False,
    "cores_are_hyperthreads": False,
    "source": "a usual laptop",
    "evidence": "M",
}

SCALES: Final[Mapping[str, Size]] = {
    "laptop": Size(machine=_LAPTOP, processes={"loader": 1, "embedding_worker": 2, "parameter_server": 2, "nn_worker": 2}),
}
