"""What a batch's costs become under a machine's conditions: its pace, a batch's footprint, and other work on the same cores.

Constants are those of host_costs at the usual pace, where one batch after another passes; what is here multiplies them.
"""

from __future__ import annotations

from math import exp

from persia.readings import Readings
from simulator.host_costs import ARITHMETIC, FLOAT_BYTES, Constants, Quantities, bytes_moved, identifier, stage_seconds, stage_terms

_FIXED = ("batch", "layer", "server", "message", "request", "meeting_message")  # paid per that, however much a batch holds
_CACHED_BYTES = 2e6  # of a batch, that cores' own caches hold from stage to stage, about
_BUSY_MEMORY = 2e8  # bytes of rows a second that ask for half of the bandwidth: amid those of a calibration's crowded points

READING_EXPONENTS = ("host.memory_exponent", "host.core_exponent")
"""The constants that hold with which exponent work follows each of a probe's readings, on average."""

ARITHMETIC_EXPONENT = "host.pace.arithmetic_memory"
"""The exponent with which plain arithmetic follows the pace."""


def crowd_factors(stage: str, *, in_step: bool) -> tuple[str, str]:
    """Return the constants by which a stage's fixed and sized work are multiplied on a crowded machine.

    Where ranks go in step they all train at one time and all ask for rows at another: what does the latter finds its code in caches.
    """
    prefix = f"host.crowd.{identifier(stage)}"
    return f"{prefix}_fixed_in_step" if in_step else f"{prefix}_fixed", f"{prefix}_sized"


def crowd_idle(stage: str) -> str:
    """Return the constant by which a stage's fixed work is multiplied that is done on a crowded machine beside idle cores.

    Threads that wait for one another leave caches warm there too, which one batch after another does not.
    """
    return f"host.crowd.{identifier(stage)}_fixed_idle"


def factors_of(stage: str) -> tuple[str, ...]:
    """Return all constants by which a stage's fixed or sized work is multiplied on a crowded machine."""
    return *crowd_factors(stage, in_step=False), crowd_factors(stage, in_step=True)[0], crowd_idle(stage)


def crowd_exponents(stage: str) -> tuple[str, str, str]:
    """Return the constants that say how a stage that is crowded follows each part of `crowding`."""
    prefix = f"host.crowd.{identifier(stage)}"
    return f"{prefix}_per_footprint", f"{prefix}_per_other_ranks", f"{prefix}_per_traffic"


def condition_exponents(stage: str) -> tuple[str, str]:
    """Return the constants that say how a stage follows the machine's pace and a batch's footprint."""
    return f"host.pace.{identifier(stage)}_memory", f"host.pace.{identifier(stage)}_footprint"


def is_fixed(constant: str) -> bool:
    """Return whether a constant of a stage is paid however much a batch holds."""
    return constant.rpartition("s_per_")[2] in _FIXED


def crowd_terms(constants: Constants, q: Quantities) -> dict[str, dict[str, float]]:
    """Return for each stage the factors that make its processor time on a crowded machine, and what they multiply.

    What a batch or a message costs however small it is falls where caches are still warm with the same code; what grows with its
    size rises, as caches are shared.
    """
    found: dict[str, dict[str, float]] = {}
    for stage, terms in stage_terms(q).items():
        fixed, sized = crowd_factors(stage, in_step=q.in_step)
        seconds = {fixed: 0.0, sized: 0.0}
        for name, count in (each for each in terms.items() if each[1]):
            seconds[fixed if is_fixed(name) else sized] += constants[name] * count
        found[stage] = seconds
    return found


def beside_idle_s(profile: Constants, q: Quantities, *, crowded: bool) -> dict[str, float]:
    """Return for each stage what a batch takes beside idle cores, on a crowded machine or where one batch after another passes."""
    found = {}
    for stage, terms in crowd_terms(profile, q).items():
        fixed, sized = (terms[name] for name in crowd_factors(stage, in_step=q.in_step))
        found[stage] = sized + fixed * (profile[crowd_idle(stage)] if crowded else 1.0)
    return found


def slowdowns(profile: Constants, q: Quantities, *, crowded: bool) -> dict[str, float]:
    """Return for each stage how many times longer a batch takes beside busy cores than beside idle ones."""
    follows, alone_s, found = crowding(profile, q), beside_idle_s(profile, q, crowded=crowded), {}
    for stage, terms in crowd_terms(profile, q).items():
        factor = stage_seconds(profile, terms) / (alone_s[stage] or 1.0)
        found[stage] = factor * exp(sum(profile[name] * each for name, each in zip(crowd_exponents(stage), follows, strict=True)))
    return found


def crowding(constants: Constants, q: Quantities) -> tuple[float, float, float]:
    """Return what `crowd_exponents` multiply: how far a footprint is from the usual one, the share of other ranks, and the traffic."""
    return footprint(q) - constants["host.footprint"], other_ranks(q), traffic(constants, q)


def traffic(constants: Constants, q: Quantities) -> float:
    """Return how much of the memory's bandwidth a batch's rows ask for, 0..1: cores share it, and one waits for what another reads.

    It grows with the bytes of all rows that pooling walks through, for each second that the batch's work takes beside idle cores,
    and less so where they are many already, as the utilisation of anything shared does.
    """
    walked = FLOAT_BYTES * q.id_values / sum(stage_seconds(constants, terms) for terms in stage_terms(q).values())
    return walked / (walked + _BUSY_MEMORY)


def other_ranks(q: Quantities) -> float:
    """Return the share of batches that are other ranks', whose work takes turns on the same cores with a rank's own, 0..1."""
    return 1.0 - 1.0 / q.ranks


def footprint(q: Quantities) -> float:
    """Return the share of a batch's bytes that no core's own cache still holds when the next stage wants them, 0..1."""
    size = bytes_moved(q)
    return size / (size + _CACHED_BYTES)


def stage_paces(profile: Constants, q: Quantities, pace: float) -> dict[str, float]:
    """Return for each stage how many times longer its work takes than usual: at a pace of the machine, with a batch's footprint."""
    larger, exponents = footprint(q) - profile["host.footprint"], pace_exponents(profile, q)
    return {stage: pace**exponent * exp(profile[condition_exponents(stage)[1]] * larger) for stage, exponent in exponents.items()}


def pace_exponents(profile: Constants, q: Quantities) -> dict[str, float]:
    """Return for each stage the exponent with which its work follows the machine's pace, of arithmetic as far as it is that."""
    found = {}
    for stage, terms in stage_terms(q).items():
        exponent, share = profile[condition_exponents(stage)[0]], 0.0
        if terms.get(ARITHMETIC):
            share = profile[ARITHMETIC] * terms[ARITHMETIC] / (stage_seconds(profile, terms) or 1.0)
        found[stage] = exponent + share * (profile[ARITHMETIC_EXPONENT] - exponent)
    return found


def told_pace(profile: Constants, readings: Readings, *, crowded: bool) -> float:
    """Return how many times longer work takes than usual, on average, where the probe reads this."""
    slower = readings.slower_than(usual_readings(profile, crowded=crowded))
    return exp(sum(profile[name] * each for name, each in zip(READING_EXPONENTS, slower, strict=True)))


def usual_readings(profile: Constants, *, crowded: bool) -> Readings:
    """Return what the probe read at the calibration, on average, beside idle cores or on a crowded machine."""
    return Readings(*(profile[name] for name in usual_reading_names(crowded=crowded)))


def usual_reading_names(*, crowded: bool) -> tuple[str, ...]:
    """Return the constants that hold the usual readings."""
    prefix = "host.crowded_" if crowded else "host."
    return tuple(prefix + name for name in Readings._fields)
