"""What each figure shows, said in a sentence that the numbers decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reports.answer import decisive_memory, in_steps
from reports.facts import Facts
from reports.words import DOUBTFUL_EVIDENCE, dollars, label, percent, plural, size, size_pair, updates
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
    """Count how many of the drawn rank's batches are under way at once, from their first to their last span."""
    open_at_once = batches_under_way(main)
    if open_at_once <= 1:
        return "One batch at a time: the next one starts when the last one's gradients are applied."
    return f"Up to {open_at_once} of the batches shown are under way at once: while one trains, others are looked up and pushed."


def batches_under_way(main: SimulationResult) -> int:
    """Return the largest number of batches of one rank between their first and last span."""
    lives: dict[int, tuple[float, float]] = {}
    for span in main.spans:
        start_s, end_s = lives.get(span.batch, (span.start_s, span.end_s))
        lives[span.batch] = (min(start_s, span.start_s), max(end_s, span.end_s))
    by_rank: dict[int, list[tuple[float, int]]] = {}
    for batch, (start_s, end_s) in lives.items():
        by_rank.setdefault(batch % max(main.ranks, 1), []).extend([(start_s, 1), (end_s, -1)])
    most = 0
    for changes in by_rank.values():
        open_now = 0
        for _, change in sorted(changes):
            open_now += change
            most = max(most, open_now)
    return most


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
    dearest = max(main.cost.tiers, key=lambda name: main.cost.tiers[name].usd_per_hour, default=tier)
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
        said += f"; {label(part)} take {percent(memory.parts_gib[part] / memory.needed_gib)} of what is needed"
    return said + "."


def network_finding(main: SimulationResult) -> str:
    """Name the busiest link."""
    if not main.links:
        return "No link was loaded."
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
