"""The answer in plain sentences, shared by the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from reports.facts import Facts
from reports.words import dollars, interval, label, percent, plural, rate, sentence, size, size_pair, updates
from simulator.result import SimulationResult, Staleness, TierMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One sentence (or part of one) per question that a capacity planner asks."""

    throughput: str
    staleness: str
    bottleneck: str
    behind: str
    memory: str
    bill: str

    def text(self) -> str:
        """Return the whole answer as running text."""
        return " ".join(sentence(part) for part in (self.throughput, self.staleness, self.bottleneck, self.memory, self.bill) if part)


def answer(result: SimulationResult, facts: Facts) -> Answer:
    """Return the answer of one simulation."""
    speed = result.throughput.samples_per_s
    behind = result.bottleneck.next
    trainers = f"{facts.hardware(result.ranks)} {'trains' if result.ranks == 1 else 'train'}"
    return Answer(
        throughput=f"{trainers} {rate(speed.mean)} (95 % interval {interval(speed)})",
        staleness=stale_words(result),
        bottleneck=result.bottleneck.sentence,
        behind=sentence(behind.sentence) if behind else "",
        memory=memory_words(result),
        bill=bill_words(result),
    )


def stale_words(result: SimulationResult) -> str:
    """Return how stale embeddings are on average, in updates and, where it is more than one rank's worth, in steps."""
    mean = result.staleness.version.mean
    if mean == 0:
        return "embeddings are never stale"
    return f"embeddings are on average {plural(mean, 'update')} stale{in_steps(result.staleness.version, result.ranks)}"


def in_steps(staleness: Staleness, ranks: int) -> str:
    """Return " (2.6 steps)", or nothing where a step is one update or none were seen."""
    steps = staleness.mean / ranks
    return f" ({updates(steps)} step{'' if updates(steps) in ('1', '1.0') else 's'})" if ranks > 1 and steps >= 0.05 else ""


def decisive_memory(result: SimulationResult) -> tuple[str, TierMemory] | None:
    """Return the tier whose memory decides: the worst that does not fit, else the servers, else the fullest."""
    if not result.memory:
        return None
    short = [(memory.available_gib - memory.needed_gib, tier) for tier, memory in result.memory.items() if not memory.fits]
    if short:
        tier = min(short)[1]
    elif "parameter_server" in result.memory:
        tier = "parameter_server"
    else:
        tier = max(result.memory, key=lambda name: result.memory[name].needed_gib / max(result.memory[name].available_gib, 1e-9))
    return tier, result.memory[tier]


def memory_words(result: SimulationResult) -> str:
    """Return whether the model fits, and in how much."""
    decisive = decisive_memory(result)
    if decisive is None:
        return ""
    tier, memory = decisive
    share = memory.needed_gib / memory.available_gib if memory.available_gib else 0.0
    if memory.fits:
        return f"the model fits: the {label(tier)} need {size_pair(memory.needed_gib, memory.available_gib)} ({percent(share)})"
    return f"the model does not fit: the {label(tier)} are {size(memory.needed_gib - memory.available_gib)} short"


def bill_words(result: SimulationResult) -> str:
    """Return the bill by the hour and by a billion samples."""
    if result.cost.usd_per_hour is None:
        return "no price is known for these machines"
    words = f"{dollars(result.cost.usd_per_hour)} an hour"
    if result.cost.usd_per_billion_samples is None:
        return words
    return f"{words}, {dollars(result.cost.usd_per_billion_samples)} per billion samples"
