"""What a simulation measures while it runs: cumulative sums, cut every few steps so that the warm-up can be left out later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from persia.trace import Span

CUT_EVERY = 5  # steps: MSER-5 truncates by fives

PARTS = ("waiting for embeddings", "host work", "forward", "backward", "waiting for the slowest rank", "exposed all-reduce", "optimizer")


class Recorder:
    """Collects staleness values, step ends, parts of the step and busy times.

    `span_steps` is the half-open range of steps whose spans are kept, for batches of ranks below `span_ranks`.
    """

    __slots__ = (
        "_busy_of",
        "_cuts",
        "_world_size",
        "in_flight",
        "latency_sums",
        "parts",
        "span_batches",
        "span_ranks",
        "span_steps",
        "spans",
        "step_end_s",
        "trained",
        "version",
    )

    def __init__(self, world_size: int, busy_of: Callable[[], list[float]], span_steps: range, span_ranks: int) -> None:
        self._world_size = world_size
        self._busy_of = busy_of
        self._cuts: dict[int, tuple[int, int, list[float], list[float], list[float]]] = {}  # by steps done
        self.version: list[int] = []  # one per update (phase fidelity) or per update and server
        self.in_flight: list[int] = []  # one per lookup
        self.parts = [0.0] * len(PARTS)  # rank-seconds, cumulative
        self.latency_sums = [0.0] * 4  # lookup, push: seconds and counts, cumulative
        self.step_end_s: list[float] = []
        self.trained = 0  # batches through the dense part
        self.spans: list[Span] = []
        self.span_steps = span_steps
        self.span_ranks = span_ranks
        self.span_batches = frozenset(step * world_size + rank for step in span_steps for rank in range(min(span_ranks, world_size)))

    def batch_trained(self, now_s: float) -> bool:
        """Count one batch; return whether it completed a step (world_size batches)."""
        self.trained += 1
        if self.trained % self._world_size:
            return False
        self.step_end_s.append(now_s)
        if len(self.step_end_s) % CUT_EVERY == 1:
            self._cut()
        return True

    def _cut(self) -> None:
        steps = len(self.step_end_s)
        self._cuts[steps] = (len(self.version), len(self.in_flight), self.parts.copy(), self.latency_sums.copy(), self._busy_of())

    def span(self, tier: str, index: int, name: str, batch: int, start_s: float, end_s: float) -> None:
        """Keep one span."""
        self.spans.append(Span(tier=tier, index=index, name=name, batch=batch, start_s=start_s, end_s=end_s))

    def since(self, warmup_steps: int) -> Window:
        """Return what was measured after the first `warmup_steps` steps, one more than a multiple of CUT_EVERY."""
        version, in_flight, parts, latency, busy = self._cuts[warmup_steps]
        self._cut()
        end = self._cuts[len(self.step_end_s)]
        return Window(
            seconds=self.step_end_s[-1] - self.step_end_s[warmup_steps - 1],
            steps=len(self.step_end_s) - warmup_steps,
            version=Counter(self.version[version : end[0]]),
            in_flight=Counter(self.in_flight[in_flight : end[1]]),
            parts=dict(zip(PARTS, _minus(end[2], parts), strict=True)),
            latency=_minus(end[3], latency),
            busy=_minus(end[4], busy),
        )


def _minus(end: Sequence[float], start: Sequence[float] | None) -> list[float]:
    return list(end) if start is None else [b - a for a, b in zip(start, end, strict=True)]


class Window:
    """The measured window: differences of the cumulative sums between two steps."""

    __slots__ = ("busy", "in_flight", "latency", "parts", "seconds", "steps", "version")

    def __init__(
        self,
        *,
        seconds: float,
        steps: int,
        version: Mapping[int, int],
        in_flight: Mapping[int, int],
        parts: Mapping[str, float],
        latency: Sequence[float],
        busy: Sequence[float],
    ) -> None:
        self.seconds = seconds
        self.steps = steps
        self.version = version
        self.in_flight = in_flight
        self.parts = parts  # rank-seconds
        self.latency = latency
        self.busy = busy
