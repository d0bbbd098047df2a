"""What must hold after every event, whatever happened: asked by the tests and by runs with `--check`.

Each function returns the broken laws as sentences; an empty list is a clean bill.
"""

from __future__ import annotations

from collections.abc import Iterable

from persia.schedule.loader import LoaderSchedule
from persia.schedule.log import Schedule
from persia.schedule.messages import Command, TrainDense
from persia.schedule.rank import RankSchedule
from persia.schedule.server import ServerSchedule
from persia.schedule.worker import WorkerSchedule


def broken_laws(schedule: Schedule) -> list[str]:
    """Return the laws that this schedule's facts break."""
    match schedule:
        case RankSchedule():
            return _broken(_rank_laws(schedule))
        case WorkerSchedule():
            return _broken(_worker_laws(schedule))
        case ServerSchedule():
            return _broken(_server_laws(schedule))
        case LoaderSchedule():
            return _broken(_loader_laws(schedule))
    raise TypeError(f"no laws are known for {type(schedule).__name__}")


def _broken(laws: Iterable[tuple[bool, str]]) -> list[str]:
    return [sentence for holds, sentence in laws if not holds]


def _rank_laws(rank: RankSchedule) -> Iterable[tuple[bool, str]]:
    limits = rank.limits
    training = set() if rank.training is None else {rank.training}
    waiting_lookups = {batch for batch in rank.permits if batch in rank.lookup_retries}
    waiting_pushes = {batch for batch in rank.permits if batch in rank.push_retries}
    places = [rank.looking_up, waiting_lookups, rank.looked_up, training, set(rank.to_push), rank.pushing, waiting_pushes]
    in_flight = set().union(*places)
    yield sum(map(len, places)) == len(in_flight), "a batch in flight is in exactly one place"
    yield in_flight == rank.permits, "a batch holds a permit exactly while it is in flight"
    yield len(rank.permits) <= limits.staleness_permits, "no more batches are in flight than there are permits"
    yield len(rank.looking_up) <= limits.lookups_max, "no more lookups are under way than there are slots"
    yield len(rank.pushing) <= limits.pushes_max, "no more pushes are under way than there are slots"
    first, world = rank.rank, limits.world_size
    yield all(batch % world == first % world for batch in in_flight), "a rank holds batches of its own only"
    yield rank.dense_batch <= rank.lookup_batch, "no batch is trained before its lookup"
    held = rank.barrier_step >= 0 and any(batch // world > rank.barrier_step for batch in rank.permits)
    yield not held, "no batch behind a barrier is in flight before the barrier has passed"


def _worker_laws(worker: WorkerSchedule) -> Iterable[tuple[bool, str]]:
    lookups = [batch for batch, fan_out in worker.fan_outs.items() if not fan_out.is_update]
    yield worker.lookups == len(lookups), "the lookups that are fanned out are counted"
    yield worker.lookups <= worker.limits.fan_outs_max, "no more lookups are fanned out than there are slots"
    yield all(batch in worker.buffer for batch in worker.work), "a batch is worked on only while it is in the buffer"
    yield not any(batch in worker.applied for batch in worker.buffer), "an applied batch has left the buffer"
    yield len(worker.applied) <= worker.limits.remember_max, "no more applied batches are remembered than agreed"
    yield not worker.to_reply_ack and not worker.to_reply_rows and not worker.to_update, "every reply and update that is due has been sent"
    places = [*worker.to_look_up, *worker.fan_outs]
    yield sorted(places) == sorted(worker.work), "a batch that is worked on is in exactly one place"
    yield not any(batch in worker.buffer for batch in worker.waiting), "a batch waits for its features only until they are here"
    kept = len(worker.buffer) + len(worker.waiting)
    yield kept == worker.timed, "whatever is kept is forgotten some day"


def _server_laws(server: ServerSchedule) -> Iterable[tuple[bool, str]]:
    yield server.busy <= server.limits.service_slots, "no more requests are in service than there are slots"
    yield not any(batch in server.applied for batch in server.updates_seen), "an applied update is not applied again"
    yield all(batch in server.updates_seen for batch in server.applying), "what is being applied was asked for"
    applying = len(server.applying) if server.limits.gather == 1 else len(server.left_of_step)
    yield server.busy == len(server.serving) + applying, "a slot is taken by each lookup in service and each run of the optimizer"
    yield not server.to_acknowledge, "every acknowledgement that is due has been sent"
    yield server.applied.held <= server.limits.remember_max, "no more applied batches are ahead of a missing one than agreed"
    groups = server.gathering.values()
    yield all(len(set(group)) == len(group) <= server.limits.gather for group in groups), "a step gathers each rank once"
    yield server.cutting is None or not server.busy, "nothing is served or applied while a snapshot is cut"


def _loader_laws(loader: LoaderSchedule) -> Iterable[tuple[bool, str]]:
    limits = loader.limits
    queues = loader.in_queue.values()
    yield all(len(queue) <= limits.input_queue_max for queue in queues), "no rank's input queue overflows"
    ahead = [batch for batches in loader.ahead.values() for batch in batches]
    yield loader.ahead_count == len(ahead) <= limits.read_ahead_max, "no more is read ahead than agreed"
    yield all(sorted(batches) == list(batches) for batches in loader.ahead.values()), "a rank's batches wait in order"
    yield all((batch in loader.read) != (batch in loader.reading) for batch in ahead), "what is read ahead is being read or ready"
    known = [*loader.sent, *loader.resending, *ahead]
    yield len(known) == len(set(known)), "a batch is sent, to be sent again or read ahead"
    yield all(batch % limits.loaders == limits.loader for batch in known), "a loader sends batches of its own only"
    yield not any(map(loader.is_committed, known)), "a committed batch is not sent again"
    yield not loader.to_send and not loader.to_read_again, "every batch that may leave or be read has been told to"


class CollectiveOrder:
    """Checks over all ranks that they train, hence reduce, in the same order: step after step, none skipped."""

    __slots__ = ("_next_step", "_world_size")

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._next_step: dict[int, int] = {}

    def broken_laws(self, rank: int, commands: Iterable[Command]) -> list[str]:
        """Return the laws broken by what this rank was just told to do."""
        broken = []
        for command in commands:
            if isinstance(command, TrainDense):
                step = command.batch // self._world_size
                if self._next_step.setdefault(rank, step) != step:
                    broken.append(f"rank {rank} trains step {step} where step {self._next_step[rank]} is due")
                self._next_step[rank] = step + 1
        return broken
