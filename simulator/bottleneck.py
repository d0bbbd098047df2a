"""What holds the cluster back: the largest part of a step, traced to the resource behind it, and the next one behind that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.result import Bottleneck, StepPart

SATURATED = 0.8  # a resource busier than this makes others queue
NOTICEABLE = 0.02  # of a step: a wait for embeddings shorter than this is noise

_TIER_WORDS = {
    "loader": "data loaders",
    "embedding_worker": "embedding workers",
    "parameter_server": "parameter servers",
    "nn_worker": "NN workers",
}
_RESOURCE_WORDS = {
    "cpu": "processors",
    "dram": "memory bandwidth",
    "nic_tx": "outgoing network",
    "nic_rx": "incoming network",
    "host_link": "host-to-device links",
    "accelerator": "accelerators",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a verdict rests on: parts of a rank's step, utilisation, mean latencies in seconds, and the permits."""

    parts: Sequence[StepPart]
    utilisation: Mapping[str, Mapping[str, float]]
    lookup_s: float
    push_s: float
    permits: int
    overlapped: bool  # lookups and pushes of other batches overlap
    accelerator: bool
    machines: int  # that run ranks


def find_bottleneck(evidence: Evidence) -> Bottleneck:
    """Return what holds the cluster back, and behind it the next.

    Where ranks wait for embeddings and a resource is saturated, it is that resource, however short the wait: a faster rank
    would only wait longer. Else it is what takes most of a rank's step.
    """
    step_s = sum(part.seconds for part in evidence.parts)
    embeddings = sum(part.seconds for part in evidence.parts if part.part in _EMBEDDING_PARTS)
    candidates = [_of_part(evidence, part.part, part.seconds, step_s) for part in evidence.parts if part.part in _LANE_WORDS]
    if embeddings > 0.0:
        candidates.append(_of_waiting(evidence, embeddings, step_s))
    paced = evidence.overlapped and embeddings >= NOTICEABLE * step_s and _busiest(evidence)[0] >= SATURATED
    ranked = sorted(candidates, key=lambda candidate: (not (paced and candidate is candidates[-1]), -candidate.share))
    first, rest = ranked[0], ranked[1:]
    behind = next((each for each in rest if (each.tier, each.resource) != (first.tier, first.resource)), None)
    return Bottleneck(tier=first.tier, resource=first.resource, sentence=first.sentence, share=first.share, next=behind)


_EMBEDDING_PARTS = ("waiting for embeddings", "lookup", "push", "barrier")
_LANE_WORDS = {
    "host work": ("host", "The rank's main thread, outside its kernels, takes {ms:.1f} ms of each {step:.1f} ms step ({share:.0%})."),
    "forward + backward": ("compute", "Forward and backward take {ms:.1f} ms of each {step:.1f} ms step ({share:.0%})."),
    "optimizer": ("compute", "The dense optimizer takes {ms:.1f} ms of each {step:.1f} ms step ({share:.0%})."),
    "exposed all-reduce": (
        "all-reduce",
        "The dense all-reduce over {links} is exposed for {ms:.1f} ms of each {step:.1f} ms step ({share:.0%}).",
    ),
    "waiting for the slowest rank": (
        "stragglers",
        "Ranks wait {ms:.1f} ms of each {step:.1f} ms step ({share:.0%}) for the slowest of them before they can average gradients.",
    ),
}


def _of_part(evidence: Evidence, part: str, seconds: float, step_s: float) -> Bottleneck:
    resource, sentence = _LANE_WORDS[part]
    if resource == "compute":
        resource = "accelerator" if evidence.accelerator else "cpu"
    links = "the NN workers' network cards" if evidence.machines > 1 else "the links inside the machine"
    text = sentence.format(ms=1e3 * seconds, step=1e3 * step_s, share=seconds / step_s, links=links)
    return Bottleneck(tier="nn_worker", resource=resource, sentence=text, share=seconds / step_s)


def _busiest(evidence: Evidence) -> tuple[float, str, str]:
    """Return the utilisation, tier and name of the busiest resource outside the ranks' training lane."""
    return max(
        (used, tier, resource)
        for tier, resources in evidence.utilisation.items()
        for resource, used in resources.items()
        if resource not in ("training_lane", "accelerator") and not (tier == "nn_worker" and resource == "cpu")
    )


def _of_waiting(evidence: Evidence, seconds: float, step_s: float) -> Bottleneck:
    """Trace the wait for embeddings to a saturated resource, or to latency that nothing hides."""
    share = seconds / step_s
    wait = f"{1e3 * seconds:.1f} ms of each {1e3 * step_s:.1f} ms step ({share:.0%})"
    used, tier, resource = _busiest(evidence)
    if used >= SATURATED:
        words = f"the {_RESOURCE_WORDS[resource]} of the {_TIER_WORDS[tier]}, {used:.0%} busy"
        return Bottleneck(tier=tier, resource=resource, sentence=f"Ranks wait {wait} for embeddings: {words}, set the pace.", share=share)
    round_trip = f"a lookup takes {1e3 * evidence.lookup_s:.1f} ms and a push {1e3 * evidence.push_s:.1f} ms"
    if not evidence.overlapped:
        sentence = f"Nothing overlaps the embeddings in this mode: ranks wait {wait}; {round_trip}."
        return Bottleneck(tier="embedding_worker", resource="latency", sentence=sentence, share=share)
    sentence = (
        f"Ranks wait {wait} for embeddings though no resource is saturated: {round_trip}, more than {_permits(evidence.permits)} hide."
    )
    return Bottleneck(tier="nn_worker", resource="staleness_permits", sentence=sentence, share=share)


def _permits(count: int) -> str:
    return "1 permit" if count == 1 else f"{count} permits"
