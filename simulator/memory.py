"""Does it fit? What each tier needs in memory against what its machines leave to it.

Sizes in GiB (2^30 bytes) in results, in TB (10^12 bytes) in sentences, as machines and tables are sold and counted.
Tiers that share machines are added up on the fullest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, gcd

from persia.scenario import TIER_NAMES, Catalog, MachineType, Profile, Scenario
from simulator.allocatable import allocatable_gib
from simulator.costs import BatchCosts, batch_costs, dense_layer_parameters
from simulator.excuse import Excuse
from simulator.remedies import server_remedies
from simulator.result import TierMemory
from simulator.rows import imbalance_bytes, kept_rows

GIB = 2.0**30
DENSE_STATE = {"sgd": 0.0, "adagrad": 1.0, "adam": 2.0}  # fp32 values of optimizer state per dense parameter
ACTIVATION_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0}
ACCELERATOR_FIXED_GIB = 1.0  # context and libraries on the device; from memory, unverified
CPU_RANK_FIXED_GIB = 1.0  # the framework of a rank without accelerator, so without a device context; likewise
EMULATED_RANK_FIXED_GIB = 0.06  # a rank without framework: measured, 1.7 GiB for 32
EMULATED_VECTORS = 5.0  # fp32 vectors of all dense parameters that an emulated rank of mode async exchanges, of zeros

Parts = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """What one process of a tier needs, in GiB by part, and how that was bounded."""

    parts: Parts
    note: str

    @property
    def gib(self) -> float:
        """Return the sum of the parts."""
        return sum(self.parts.values())


def memory_fit(scenario: Scenario, catalog: Catalog, profile: Profile) -> tuple[dict[str, TierMemory], list[Excuse]]:
    """Return the memory of each tier (and of the accelerators, as `nn_worker_gpu`), and an excuse for each that overflows.

    Raises:
        ScenarioError: a machine type is in neither the scenario nor the catalogue.
    """
    batch = batch_costs(scenario, profile)
    machines = {tier: catalog.machine(scenario.host_machine_type(tier), scenario) for tier in TIER_NAMES}
    device, on_host = _dense_parts(scenario, batch)
    if machines["nn_worker"].accelerator is not None:
        on_host = {}
    fixed_gib = CPU_RANK_FIXED_GIB if on_host else profile["rank.fixed_gib"]
    if scenario.simulation.emulated_accelerator is not None:
        exchanged = sum(dense_layer_parameters(scenario)) if scenario.schedule.mode == "async" else 0.0
        on_host, fixed_gib = {"dense_vectors": EMULATED_VECTORS * 4.0 * exchanged / GIB}, EMULATED_RANK_FIXED_GIB
    needs = {
        "loader": _Need(parts={"process": profile["loader.fixed_gib"]}, note="process and read-ahead"),
        "embedding_worker": _worker_need(scenario, batch, profile),
        "parameter_server": _server_need(scenario, profile),
        "nn_worker": _rank_need(scenario, batch, fixed_gib, on_host),
    }
    fits: dict[str, TierMemory] = {}
    excuses: list[Excuse] = []
    for host in dict.fromkeys(scenario.host_tier(tier) for tier in TIER_NAMES):
        group = [tier for tier in TIER_NAMES if scenario.host_tier(tier) == host]
        fits |= _group_fit(scenario, machines[host], group, needs)
        if not fits[host].fits:
            excuses.append(_excuse(scenario, profile, machines[host], group, needs))
    accelerator = machines["nn_worker"].accelerator
    if accelerator is not None:
        fits["nn_worker_gpu"] = _accelerator_fit(scenario, catalog.accelerators[accelerator].hbm_gib, device)
        if not fits["nn_worker_gpu"].fits:
            excuses.append(_accelerator_excuse(scenario, accelerator, fits["nn_worker_gpu"], device))
    return {tier: fits[tier] for tier in (*TIER_NAMES, "nn_worker_gpu") if tier in fits}, excuses


# --- what a process needs --------------------------------------------------------------------------------------------


def overhead_bytes_per_row(scenario: Scenario, profile: Profile) -> float:
    """Return the bytes a row takes beside parameters and optimizer state: the scenario's figure, or the profile's."""
    own = scenario.model.resident_bytes_per_row_overhead
    return profile["server.resident_overhead_bytes_per_row"] if own is None else float(own)


def _server_need(scenario: Scenario, profile: Profile) -> _Need:
    """Return what the fullest parameter server needs; rows of every feature are spread over all servers by hash."""
    processes = _processes(scenario, "parameter_server")
    overhead = overhead_bytes_per_row(scenario, profile)
    kinds = kept_rows(scenario)
    parts = {
        "embeddings": sum(kind.rows * kind.parameter_bytes for kind in kinds) / processes / GIB,
        "optimizer_state": sum(kind.rows * kind.state_bytes for kind in kinds) / processes / GIB,
        "keys_and_links": sum(kind.rows for kind in kinds) * overhead / processes / GIB,
        "imbalance": imbalance_bytes(kinds, processes, overhead) / GIB,
        "process": profile["server.fixed_gib"],
    }
    return _Need(parts=parts, note=f"{overhead:g} bytes a row for key, links and allocator; rows spread by hash, mean + 4 sigma")


def _worker_need(scenario: Scenario, batch: BatchCosts, profile: Profile) -> _Need:
    """Return what an embedding worker needs for the batches that it buffers and for those that it works on.

    A batch's ID features stay from the loader's message until its gradients return. What waits in the ranks' input queues
    and what holds one of their staleness permits bounds what is buffered, and so does `buffered_batches_per_loader`.
    Only batches with a permit have rows here.
    """
    workers, loaders = _processes(scenario, "embedding_worker"), _processes(scenario, "loader")
    in_flight = ceil(scenario.ranks * (_waiting(scenario) + scenario.staleness_permits) / workers)
    cap = loaders * scenario.schedule.buffered_batches_per_loader
    buffered = min(in_flight, cap)
    working = min(buffered, ceil(scenario.ranks * scenario.staleness_permits / workers))
    row_values = batch.lookup_reply_bytes + batch.update_bytes  # rows, and the sums of their gradients
    parts = {
        "id_features": buffered * batch.loader_worker_bytes / GIB,
        "rows": working * (row_values + 2.0 * batch.worker_rank_bytes) / GIB,
        "process": profile["worker.fixed_gib"],
    }
    bound = "the ranks' queues and permits" if in_flight <= cap else "buffered_batches_per_loader"
    return _Need(parts=parts, note=f"at most {buffered} batches buffered, {working} of them with rows (bound by {bound})")


def _processes(scenario: Scenario, tier: str) -> int:
    """Return how many processes a tier has."""
    spec = scenario.tier(tier)
    return spec.count * spec.processes_per_machine


def _waiting(scenario: Scenario) -> int:
    """Return how many batches may wait at a rank: `input_queue_batches` of each loader that feeds it.

    Loader l of L reads batches l, l + L, ... and batch b goes to rank b mod N, so that L / gcd(L, N) loaders feed a rank.
    """
    loaders = _processes(scenario, "loader")
    return loaders // gcd(loaders, scenario.ranks) * scenario.schedule.input_queue_batches


def _rank_need(scenario: Scenario, batch: BatchCosts, fixed_gib: float, dense: Parts) -> _Need:
    """Return what a rank needs in host memory: dense features waiting, pooled embeddings under way, its process."""
    waiting = _waiting(scenario)
    batches = waiting * batch.loader_rank_bytes + scenario.staleness_permits * 2.0 * batch.worker_rank_bytes
    parts = {"batches": batches / GIB, "process": fixed_gib, **dense}
    return _Need(parts=parts, note=f"{waiting} batches waiting, {scenario.staleness_permits} with embeddings")


def _dense_parts(scenario: Scenario, batch: BatchCosts) -> tuple[Parts, Parts]:
    """Return what a rank's dense part needs on an accelerator, and in host memory where there is none.

    Weights, gradients, reduction buckets (a second copy of the gradients) and optimizer state in fp32; every layer's
    output before and after its activation, and the input, for the backward pass; prefetched and outgoing embeddings.
    """
    dense = scenario.model.dense
    parameters = sum(dense_layer_parameters(scenario))
    inputs = batch.worker_rank_bytes / batch.samples / 2.0 + dense.dense_features
    width = inputs + 2.0 * sum(dense.layers)
    held = min(scenario.schedule.prefetch_batches, scenario.staleness_permits) + 1
    parts = {
        "weights": 4.0 * parameters / GIB,
        "gradients_and_buckets": 8.0 * parameters / GIB,
        "optimizer_state": 4.0 * DENSE_STATE[dense.optimizer] * parameters / GIB,
        "activations": batch.samples * width * ACTIVATION_BYTES[dense.precision] / GIB,
        "batch_buffers": held * 2.0 * batch.worker_rank_bytes / GIB,
    }
    return {**parts, "context": ACCELERATOR_FIXED_GIB}, parts


# --- against what there is -------------------------------------------------------------------------------------------


def _machine_gib(scenario: Scenario, tier: str, needs: Mapping[str, _Need]) -> float:
    """Return what one machine's processes of a tier need."""
    return scenario.tier(tier).processes_per_machine * needs[tier].gib


def _group_fit(scenario: Scenario, machine: MachineType, group: list[str], needs: Mapping[str, _Need]) -> dict[str, TierMemory]:
    """Return the memory of the tiers that share one kind of machine; the first machines carry all of them."""
    there = allocatable_gib(machine)
    together = sum(_machine_gib(scenario, tier, needs) for tier in group)
    fits: dict[str, TierMemory] = {}
    for tier in group:
        count, processes = scenario.tier(tier).count, _processes(scenario, tier)
        others = together - _machine_gib(scenario, tier, needs)
        note = needs[tier].note
        if len(group) > 1:
            note += f"; shares its machines with {', '.join(other for other in group if other != tier)}, whose need is not available to it"
        fits[tier] = TierMemory(
            needed_gib=processes * needs[tier].gib,
            available_gib=count * max(0.0, there - others),
            fits=together <= there,
            parts_gib={part: processes * gib for part, gib in needs[tier].parts.items()},
            note=note,
        )
    return fits


def _accelerator_fit(scenario: Scenario, hbm_gib: float, parts: Parts) -> TierMemory:
    """Return the memory of the accelerators, one to a rank."""
    needed = sum(parts.values())
    return TierMemory(
        needed_gib=scenario.ranks * needed,
        available_gib=scenario.ranks * hbm_gib,
        fits=needed <= hbm_gib,
        parts_gib={part: scenario.ranks * gib for part, gib in parts.items()},
        note=f"{needed:.2f} of {hbm_gib:g} GiB on each accelerator",
    )


# --- why not ---------------------------------------------------------------------------------------------------------


def _tier_words(tier: str) -> str:
    """Return a tier's name in plain words, in the plural."""
    return {"nn_worker": "NN workers"}.get(tier, f"{tier.replace('_', ' ')}s")


def _size(gib: float) -> str:
    """Return a size in TB or GB (decimal), whichever reads better."""
    size_bytes = gib * GIB
    return f"{size_bytes / 1e12:,.1f} TB" if size_bytes >= 1e12 else f"{size_bytes / 1e9:,.1f} GB"


def _excuse(scenario: Scenario, profile: Profile, machine: MachineType, group: list[str], needs: Mapping[str, _Need]) -> Excuse:
    """Return why the tiers on one kind of machine do not fit, and what would make them."""
    worst = max(group, key=lambda tier: _machine_gib(scenario, tier, needs))
    there = allocatable_gib(machine)
    full, load = _overflow(scenario, group, needs, there)
    others = [tier for tier in group if tier != worst]
    room_gib = there - sum(_machine_gib(scenario, tier, needs) for tier in others)
    remedies: tuple[str, ...]
    if worst == "parameter_server":
        room_gib -= scenario.tier(worst).processes_per_machine * profile["server.fixed_gib"]
        remedies = server_remedies(scenario, machine.name, room_gib * GIB, overhead_bytes_per_row(scenario, profile))
    else:
        remedies = _process_remedies(scenario, machine, worst, needs[worst], room_gib)
    who = " with ".join([_tier_words(worst), *([" and ".join(_tier_words(tier) for tier in others)] if others else [])])
    missing = full * (load - there)
    return Excuse(
        reason=f"{who} need {_size(full * load)} and have {_size(full * there)}: {_size(missing)} are missing",
        bottleneck=f"{worst} memory",
        missing_gib=missing,
        remedies=remedies,
    )


def _overflow(scenario: Scenario, group: list[str], needs: Mapping[str, _Need], there_gib: float) -> tuple[int, float]:
    """Return how many machines overflow, and the mean need of those in GiB.

    Tiers fill their machines from the first, so that machine i carries every tier that has more than i.
    """
    full, total, below = 0, 0.0, 0
    for count in sorted({scenario.tier(tier).count for tier in group}):
        load = sum(_machine_gib(scenario, tier, needs) for tier in group if scenario.tier(tier).count >= count)
        if load > there_gib:
            full, total = full + count - below, total + (count - below) * load
        below = count
    return full, total / full


def _process_remedies(scenario: Scenario, machine: MachineType, tier: str, need: _Need, room_gib: float) -> tuple[str, ...]:
    """Return what lets a tier of ordinary processes fit into `room_gib` of each machine."""
    remedies = []
    most = int(room_gib // need.gib)
    if 1 <= most < scenario.tier(tier).processes_per_machine:
        remedies.append(f"run at most {most} processes a machine instead of {scenario.tier(tier).processes_per_machine}")
    needed_gib = scenario.tier(tier).processes_per_machine * need.gib
    remedies.append(f"take machines with {needed_gib:,.0f} GiB for {tier} instead of {machine.name} with {room_gib:,.0f} GiB to give")
    growing = {part: gib for part, gib in need.parts.items() if part != "process"}
    largest = max(growing, key=lambda part: growing[part], default="process")
    if largest in ("id_features", "rows", "batches", "batch_buffers"):
        remedies.append("lower schedule.staleness_permits, schedule.input_queue_batches or workload.batch_size")
    return tuple(remedies)


def _accelerator_excuse(scenario: Scenario, accelerator: str, fit: TierMemory, parts: Parts) -> Excuse:
    """Return why a rank does not fit on its accelerator, and the largest batch that would."""
    each, there = fit.needed_gib / scenario.ranks, fit.available_gib / scenario.ranks
    growing = parts["activations"] + parts["batch_buffers"]
    room = there - (each - growing)
    samples = int(scenario.workload.batch_size * room / growing) if growing > 0.0 else 0
    remedies = ["take an accelerator with more memory, or a smaller dense network"]
    if samples >= 1:
        remedies.insert(0, f"lower workload.batch_size from {scenario.workload.batch_size:,} to {samples:,}")
    return Excuse(
        reason=f"a rank needs {_size(each)} on its {accelerator}, which has {_size(there)}: {_size(each - there)} are missing",
        bottleneck="nn_worker accelerator memory",
        missing_gib=fit.needed_gib - fit.available_gib,
        remedies=tuple(remedies),
    )
