"""What each figure shows, said in a sentence that the numbers decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reports.answer import decisive_memory, in_steps
from reports.facts import Facts
from reports.figures.folds import busy_stretches
from reports.words import DOUBTFUL_EVIDENCE, dollars, label, percent, plural, seconds, size, size_pair, updates
from simulator.result import Interval, SimulationResult


def findings(results: Sequence[SimulationResult]) -> dict[str, str]:
    """Return a caption for every figure, by the figure's name."""
    main = results[0]
    makers: Mapping[str, Callable[[], str]] = {
        "throughput": lambda: throughput_finding(results),
        "step": lambda: step_finding(main),
        "timeline": lambda: timeline_finding(main),
        "staleness": lambda: staleness_finding(main),
        "utilisation": lambda: utilisation_finding(main),
        "memory": lambda: memory_finding(main),
        "network": lambda: network_finding(main),
        "bill": lambda: bill_finding(main),
        "assumptions": lambda: assumptions_finding(main),
    }
    return {name: make() for name, make in makers.items()}


def throughput_finding(results: Sequence[SimulationResult]) -> str:
    """Compare the main mode with the slowest and the fastest of the others; overlapping intervals are said to be equal."""
    main = results[0]
    others = sorted(results[1:], key=lambda result: result.throughput.samples_per_s.mean)
    if not others:
        return f"Only {main.mode} was simulated: there is nothing to compare it with."
    said = [_compared(main, others[0])]
    if len(others) > 1:
        said.append(_compared(main, others[-1]))
    return f"{main.mode.capitalize()} is {' and '.join(said)}."


def _compared(main: SimulationResult, other: SimulationResult) -> str:
    mine, theirs = main.throughput.samples_per_s, other.throughput.samples_per_s
    if _overlap(mine, theirs):
        return f"as fast as {other.mode} (their intervals overlap)"
    ratio = mine.mean / theirs.mean if theirs.mean else float("inf")
    if ratio >= 1.5:
        return f"{ratio:.1f} times as fast as {other.mode}"
    return f"{percent(abs(ratio - 1))} {'faster' if ratio > 1 else 'slower'} than {other.mode}"


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


def step_finding(main: SimulationResult) -> str:
    """Name the largest part of a step, and how much of the step is waiting."""
    if not main.step_parts:
        return "No parts were recorded."
    largest = max(main.step_parts, key=lambda part: part.seconds)
    total_s = sum(part.seconds for part in main.step_parts) or 1.0
    second = sorted(main.step_parts, key=lambda part: -part.seconds)[1:2]
    words = f"{label(largest.part).capitalize()} takes {percent(largest.seconds / total_s)} of a step in {main.mode}"
    return words + (f"; next comes {label(second[0].part)} with {percent(second[0].seconds / total_s)}." if second else ".")


def timeline_finding(main: SimulationResult) -> str:
    """Say how long a batch lives, in steps too, and how much of that it waits; empty spans say so."""
    if not main.spans:
        return "No spans were recorded."
    life_s, work_s = batch_life(main)
    waits = max(0.0, 1 - work_s / life_s) if life_s else 0.0
    steps = life_s / main.step_time_s.p50 if main.step_time_s.p50 else 0.0
    as_steps = f", as long as {steps:.0f} steps" if steps >= 1.5 else ""
    return f"A batch lives {seconds(life_s)} from its reading to its update{as_steps}; {percent(waits)} of that time it waits."


def batch_life(main: SimulationResult) -> tuple[float, float]:
    """Return the mean life of a batch, from its first span's start to its last one's end, and the part with work in it; seconds."""
    by_batch: dict[int, list[tuple[float, float]]] = {}
    for span in main.spans:
        by_batch.setdefault(span.batch, []).append((span.start_s, span.end_s))
    lives = [busy_stretches(intervals) for intervals in by_batch.values()]
    life_s = sum(life[-1][1] - life[0][0] for life in lives) / len(lives)
    return life_s, sum(end - start for life in lives for start, end in life) / len(lives)


def staleness_finding(main: SimulationResult) -> str:
    """Set what the servers did meanwhile beside what the batch's own rows missed."""
    version, row = main.staleness.version, main.staleness.row
    if version.max == 0:
        return "No embedding is stale: every lookup sees all earlier updates."
    said = f"Between a batch's lookup and its update a server applies {plural(version.mean, 'other update')}{in_steps(version, main.ranks)}"
    total = sum(row.histogram.values())
    if not total:
        return said + "."
    return f"{said}; yet {percent(row.histogram.get(0, 0.0) / total)} of the batch's rows were touched by none of them."


def staleness_note(main: SimulationResult, facts: Facts) -> str:
    """Return the tail of version staleness and the bound that permits set on what is in flight."""
    version = main.staleness.version
    said = f"Version staleness: 99 % at most {updates(version.p99)}, never above {updates(version.max)} updates."
    if facts.staleness_permits:
        most = facts.staleness_permits * main.ranks
        said += f" {facts.staleness_permits} permits a rank let at most {most:,} batches be in flight."
    return said


def utilisation_finding(main: SimulationResult) -> str:
    """Name the busiest resource, and how busy the tier that costs most is."""
    shares = [
        (share, tier, resource)
        for tier, resources in main.utilisation.items()
        for resource, share in resources.items()
        if resource != "training_lane"  # no hardware: a share of time
    ]
    if not shares:
        return "No utilisation was recorded."
    share, tier, resource = max(shares)
    said = f"Of all hardware, the {label(tier)}' {label(resource)} is busiest, at {percent(share)}"
    paid = [name for name, bill in main.cost.tiers.items() if bill.usd_per_hour > 0]
    dearest = max(paid, key=lambda name: main.cost.tiers[name].usd_per_hour, default=tier)
    own = max((entry for entry in shares if entry[1] == dearest), default=None)
    if dearest == tier or own is None:
        return said + "."
    return f"{said}; the dearest tier, the {label(dearest)}, peaks at {percent(own[0])} ({label(own[2])})."


def memory_finding(main: SimulationResult) -> str:
    """Say which tier's memory decides, how much is left or missing, and the largest part."""
    decisive = decisive_memory(main)
    if decisive is None:
        return "No memory was counted."
    tier, memory = decisive
    rest = memory.available_gib - memory.needed_gib
    said = f"The {label(tier)} need {size_pair(memory.needed_gib, memory.available_gib)}: "
    said += f"it fits, with {size(rest)} to spare" if memory.fits else f"{size(-rest)} too little"
    if memory.parts_gib and memory.needed_gib:
        part = max(memory.parts_gib, key=lambda name: memory.parts_gib[name])
        said += f"; the largest part is {label(part)}, {percent(memory.parts_gib[part] / memory.needed_gib)}"
    return said + "."


def network_finding(main: SimulationResult) -> str:
    """Name the busiest link."""
    if not main.links:
        return "No network link is loaded, as when everything runs on one machine."
    link = max(main.links, key=lambda load: load.utilisation)
    return f"The busiest link joins {label(link.source)} and {link.target}: {percent(link.utilisation)} of {link.gbps:g} Gbps."


def bill_finding(main: SimulationResult) -> str:
    """Name the dearest tier and its share."""
    total = main.cost.usd_per_hour
    if not total or not main.cost.tiers:
        return "No price is known for these machines."
    tier = max(main.cost.tiers, key=lambda name: main.cost.tiers[name].usd_per_hour)
    return (
        f"The {label(tier)} are {percent(main.cost.tiers[tier].usd_per_hour / total)} of the {dollars(total)} an hour, "
        f"which is {dollars(24 * total)} a day."
    )


def assumptions_finding(main: SimulationResult) -> str:
    """Count the inputs and those nobody has verified."""
    doubtful = [assumption for assumption in main.assumptions if assumption.evidence in DOUBTFUL_EVIDENCE]
    if not main.assumptions:
        return "The result lists no inputs."
    return f"{len(doubtful)} of {len(main.assumptions)} inputs are unverified or inferred; they come first, marked."
