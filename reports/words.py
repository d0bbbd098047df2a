"""Numbers and names as people read them: one place decides units, digits and labels.

Sizes are decimal (1 TB = 10^12 bytes) because the published cluster is quoted so; a fraction prints as a percentage.
"""

from __future__ import annotations

import ast
import math
import re

from simulator.result import Interval

GIB_IN_GB = 1.073741824
TIER_ORDER = ("loader", "embedding_worker", "parameter_server", "nn_worker")
MODE_ORDER = ("sync", "naive-hybrid", "hybrid", "async")
TIER_NAMES = {
    "loader": "data loaders",
    "embedding_worker": "embedding workers",
    "parameter_server": "parameter servers",
    "nn_worker": "NN workers",
}
MODE_MEANINGS = {
    "sync": "nothing overlaps: the next lookup waits until every rank's gradients of this step are applied",
    "naive-hybrid": "lookups and pushes overlap other batches; the dense all-reduce stands exposed after backward",
    "hybrid": "as naive-hybrid, and the dense all-reduce overlaps backward, bucket by bucket",
    "async": "everything overlaps, and dense parameters pass through a parameter server, unsynchronised",
}
EVIDENCE_NAMES = {"S": "read", "D": "derived", "M": "unverified", "I": "inferred", "F": "fitted"}
EVIDENCE_MEANINGS = {
    "S": "read in the source named beside it",
    "D": "computed from values that were read, by the formula given",
    "M": "written from memory and not verified: check it before you rely on it",
    "I": "inferred from indirect evidence: nobody publishes it",
    "F": "fitted, so that the simulation meets the published rows named beside it",
}
DOUBTFUL_EVIDENCE = ("M", "I")

_WHOLE = {
    "nic_tx": "outgoing network",
    "nic_rx": "incoming network",
    "nic": "network card",
    "host_link": "host-to-device link",
    "in_flight": "in flight",
    "training_lane": "training lane, not waiting",
    "nn_worker_gpu": "accelerators",
}
_UNIT_GAP = re.compile(r"(?<=\d) (?=(?:%|[TGMk]\b|[TGMm\u00b5]?[Bs]\b|Gbps\b|GiB\b))")
_SPECIAL = {
    "cpu": "CPU",
    "gpu": "GPU",
    "nic": "network card",
    "nics": "network cards",
    "dram": "memory bandwidth",
    "hbm": "GPU memory",
    "ram": "RAM",
    "nvlink": "NVLink",
    "pcie": "PCIe",
    "nn": "NN",
    "io": "I/O",
    "id": "ID",
    "ids": "IDs",
    "lru": "LRU",
    "os": "OS",
    "fp16": "fp16",
    "fp32": "fp32",
}


def label(name: str) -> str:
    """Return a field name as words: `row_index` becomes "row index"; words stay as they are."""
    if name in TIER_NAMES or name in _WHOLE:
        return TIER_NAMES.get(name) or _WHOLE[name]
    for tier, words in TIER_NAMES.items():
        if name.startswith(tier + "."):
            return f"{words}, {label(name[len(tier) + 1 :])}"
    return " ".join(_SPECIAL.get(word, word) for word in re.split(r"[_. ]+", name) if word)


def tier_rank(name: str) -> tuple[int, str]:
    """Return the sort key that puts tiers in the order a batch meets them."""
    base = name.split(".")[0]
    return (TIER_ORDER.index(base) if base in TIER_ORDER else len(TIER_ORDER), name)


def mode_rank(mode: str) -> int:
    """Return the sort key that puts modes from the least to the most overlap."""
    return MODE_ORDER.index(mode) if mode in MODE_ORDER else len(MODE_ORDER)


def digits(value: float, significant: int = 3) -> str:
    """Return `value` with so many significant digits, thousands grouped, and no exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    value = float(f"{value:.{significant - 1}e}")
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value)) + 1e-12))
    return f"{value:,.{min(decimals, 6)}f}"


def _prefix(value: float) -> tuple[float, str]:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return factor, prefix
    return 1.0, ""


def count(value: float, significant: int = 3) -> str:
    """Return a count with an SI prefix: 1790000 becomes "1.79 M"."""
    factor, prefix = _prefix(value)
    return f"{digits(value / factor, significant)} {prefix}".rstrip()


def rate(samples_per_s: float) -> str:
    """Return a throughput with its unit, as "1.79 M samples/s"."""
    factor, prefix = _prefix(samples_per_s)
    return f"{digits(samples_per_s / factor)} {prefix}{' ' if prefix else ''}samples/s"


def interval(value: Interval) -> str:
    """Return the two ends in one prefix, with digits enough to tell them apart: "1.784 to 1.796 M"."""
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return "unknown: too few steps"
    factor, prefix = _prefix(value.mean)
    half = max(value.high - value.low, 0.0) / 2 / factor
    fewest = 1 if value.mean / factor < 99.95 else 0
    decimals = 2 if half <= 0 else min(4, max(fewest, math.ceil(-math.log10(half))))
    return f"{value.low / factor:,.{decimals}f} to {value.high / factor:,.{decimals}f} {prefix}".rstrip()


def half_width(value: Interval) -> float:
    """Return half of the interval as a fraction of its mean; infinite where the interval is."""
    return (value.high - value.low) / 2 / value.mean if value.mean else 0.0


def spread(value: Interval) -> str:
    """Return the half-width as a percentage of the mean with two digits: "± 0.34 %"."""
    half = half_width(value)
    return f"\u00b1 {digits(100 * half, 2)} %" if math.isfinite(half) else "unknown"


def seconds(value_s: float) -> str:
    """Return a time in the unit that keeps it between 1 and 1,000."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value_s) >= 0.9995 * factor:
            return f"{digits(value_s / factor)} {unit}"
    return f"{digits(value_s / 1e-6)} µs" if value_s else "0 s"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage; small ones keep a digit, and only 0 prints as 0."""
    value = 100 * fraction
    if not math.isfinite(value):
        return "unknown"
    if 0 < abs(value) < 0.1:
        return "< 0.1 %" if value > 0 else "> -0.1 %"
    return f"{value:.1f} %" if 0 < abs(value) < 9.95 else f"{value:.0f} %"


def size(gib: float) -> str:
    """Return a size in GiB as decimal MB, GB or TB."""
    gigabytes = gib * GIB_IN_GB
    if gigabytes >= 999.5:
        return f"{digits(gigabytes / 1000)} TB"
    return f"{digits(gigabytes)} GB" if gigabytes >= 0.9995 or gigabytes == 0 else f"{digits(gigabytes * 1000)} MB"


def size_pair(needed_gib: float, available_gib: float) -> str:
    """Return "279 of 372 TB", the unit said once where both share it."""
    needed, available = size(needed_gib), size(available_gib)
    if needed.split()[1] == available.split()[1]:
        needed = needed.split()[0]
    return f"{needed} of {available}"


def dollars(usd: float | None) -> str:
    """Return an amount in US dollars; cents only where they matter; "no price" for None."""
    if usd is None:
        return "no price"
    return f"${usd:,.0f}" if abs(usd) >= 99.5 else f"${usd:,.2f}"


def quantity(text: str) -> str:
    """Return an input's value as people read it.

    "1e-05 s/row" becomes "10.0 µs/row"; a bare 1 as a ratio's unit goes; of a mapping, fields that say nothing go.
    """
    if text.startswith("{"):
        return _mapping(text)
    found = re.fullmatch(r"(-?[\d.]+(?:e[-+]?\d+)?)(?: (\S+))?", text)
    if found is None:
        return text
    value, unit = float(found[1]), found[2] or ""
    if unit == "s" or unit.startswith("s/"):
        return seconds(value) + unit[1:]
    plain = f"{int(value):,}" if re.fullmatch(r"-?\d{5,}", found[1]) else found[1]
    if "e" in found[1]:
        plain = count(value) if value >= 1 else found[1]
    return plain if unit in ("", "1") else f"{plain} {unit}"


def _mapping(text: str) -> str:
    try:
        fields = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value not in (None, False))


def updates(value: float) -> str:
    """Return a staleness: whole numbers where large, a decimal where small."""
    return f"{value:,.0f}" if value == round(value) or value >= 99.5 else f"{value:,.1f}"


def plural(number: float, word: str) -> str:
    """Return "1 update" or "3 updates"."""
    return f"{updates(number)} {word if updates(number) == '1' else word + 's'}"


def glued(text: str, glue: str) -> str:
    """Return the text with `glue` for the space between a number and its unit, where a line must not end."""
    return _UNIT_GAP.sub(glue, text)


def sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    text = re.sub(r"(?<=\d)%", " %", text.strip())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""
