"""The processes of one machine and their messages: threads that share its cores, bytes that threads move.

A process carries out what its schedule says on its own thread, before it hears the next message.  A message takes
processor time at both ends, then the receiver's attention; what the receiver does before it waits again comes last.  A link
of limited rate between two tiers lets a message through in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persia.scenario import Scenario
from persia.schedule import messages as m
from simulator.core import Group, Job, Thread
from simulator.driving import Driving, Process
from simulator.host_costs import STAGE_OF_ROLE
from simulator.host_jobs import JobCosts
from simulator.processor import Processor
from simulator.queues import Link
from simulator.streams import Noise

Then = Callable[..., None]

_TCP_PAYLOAD = 1448 / 1514  # of an Ethernet frame (RFC 894), beside headers of Ethernet (14 bytes), IP (20), TCP with timestamps (32)


class HostProcess(Process):
    """A process with its threads: `main` carries out, `io` moves bytes, `beside` trains where it is a rank."""

    __slots__ = ("beside", "io", "main", "sleep_s", "sleeps")

    schedule: Any

    def __init__(self, role: str, index: int, schedule: Any, group: Group, costs: JobCosts) -> None:
        """Start its threads."""
        super().__init__(role, index, schedule)
        stage = STAGE_OF_ROLE[role]
        self.main = Thread(group, costs.slowdown[stage])
        self.sleep_s = costs.sleep_s[stage]
        self.sleeps = 0  # so far, of its own thread
        self.io = Thread(group, costs.slowdown["io"])
        self.beside = Thread(group, costs.slowdown["train"])


class HostDriving(Driving):
    """Events, jobs and messages of processes that share one machine."""

    _processor: Processor
    costs: JobCosts
    _noise: Noise
    _links: dict[tuple[str, str], Link]
    _made: list[Job]

    def _tell(self, process: Process, event: m.Event) -> None:
        """Tell a schedule; what its commands need of the process's own thread is done before the next message."""
        assert isinstance(process, HostProcess)
        outer, self._made = self._made, []
        super()._tell(process, event)
        made, self._made = self._made, outer
        self._processor.run_next(process.main, made)

    def _work(self, work_s: float, then: Then, *args: Any, slowdown: float | None = None) -> Job:
        return Job(work_s * self._noise.factor(), then, args, slowdown)

    def run(self, thread: Thread, work_s: float, then: Then, *args: Any) -> None:
        """Let a thread work."""
        self._processor.run(thread, self._work(work_s, then, *args))

    def _do(self, process: HostProcess, work_s: float, then: Then, *args: Any, slowdown: float | None = None) -> None:
        """Let the process's own thread work, as a part of what it is carrying out."""
        self._made.append(self._work(work_s, then, *args, slowdown=slowdown))

    def send(
        self, source: HostProcess, target: HostProcess, size_bytes: float, pack_s: float, take_s: float, then: Then, *args: Any
    ) -> None:
        """Send a message as a part of what `source` is carrying out; `then(*args)` when `target` has taken it."""
        self._do(source, pack_s, self._transfer, source, target, size_bytes, take_s, then, args)

    def send_next(
        self, source: HostProcess, target: HostProcess, size_bytes: float, pack_s: float, take_s: float, then: Then, *args: Any
    ) -> None:
        """Send a message before all else that `source` has to do: for what the job that is just ending has led to."""
        self._processor.run_next(source.main, [self._work(pack_s, self._transfer, source, target, size_bytes, take_s, then, args)])

    @property
    def now_s(self) -> float:
        """Return the simulated time."""
        return self._engine.now_s

    def call_later(self, delay_s: float, then: Then, *args: Any) -> None:
        """Call `then(*args)` later."""
        self._engine.call_later(delay_s, then, *args)

    def _transfer(
        self, source: HostProcess, target: HostProcess, size_bytes: float, take_s: float, then: Then, args: tuple[Any, ...]
    ) -> None:
        """Move the bytes: the sender's thread works, then the receiver's; a limited link between them lets them through in time."""
        half_s = 0.5 * self.costs.transfer_s(size_bytes)

        def sent() -> None:
            self._engine.call_later(self._link_s(source.role, target.role, size_bytes), receive)

        def receive() -> None:
            self.run(target.io, half_s, received)

        def received() -> None:
            self._arrive(target, take_s, then, args)

        self.run(source.io, half_s, sent)

    def _link_s(self, source: str, target: str, size_bytes: float) -> float:
        link = self._links.get((source, target))
        now_s = self._engine.now_s
        return 0.0 if link is None else link.send(now_s, size_bytes) - now_s

    def _arrive(self, target: HostProcess, take_s: float, then: Then, args: tuple[Any, ...]) -> None:
        """Let the process's own thread take what is there for it; one that has slept must find its way again."""
        slept = target.main.job is None
        target.sleeps += slept
        after_s = min(take_s, self.costs.after_s)
        self.run(target.main, take_s - after_s + slept * target.sleep_s, self._taken, target, after_s, then, args)

    def _taken(self, target: HostProcess, after_s: float, then: Then, args: tuple[Any, ...]) -> None:
        """Carry out what a message leads to; then the process looks what is due, and waits for the next one."""
        self._processor.run_next(target.main, [self._work(after_s, ends_there)])
        then(*args)

    def report(self, process: HostProcess, then: Then, args: tuple[Any, ...]) -> None:
        """Work beside is done: the process's own thread hears of it."""
        self._arrive(process, self.costs.post_s, then, args)


def ends_there() -> None:
    """Work that leads to nothing by itself."""


def limited_links(scenario: Scenario) -> dict[tuple[str, str], Link]:
    """Return the links of limited rate between tiers, one for each direction."""
    links: dict[tuple[str, str], Link] = {}
    for link in scenario.cluster.network.links:
        if link.bandwidth is not None:
            for pair in ((link.source, link.target), (link.target, link.source)):
                links[pair] = Link(_TCP_PAYLOAD * link.bandwidth / 8.0)
    return links
