"""The words between a schedule and whatever drives it: events are past tense, commands imperative.

Every word is frozen, slotted and serialises to one line (`lines.py`).  `batch` numbers batches of the whole run from 0;
batch b is trained by rank b mod world_size in step b div world_size.  `server` = EVERY_SERVER stands for a whole fan-out
at once.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_SERVER = -1


@dataclass(frozen=True, slots=True)
class Word:
    """One fact or one decision; all fields are integers, so that a line holds it exactly."""


class Event(Word):
    """A fact that the driver reports."""

    __slots__ = ()


class Command(Word):
    """A decision that the driver carries out."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Timer(Event):
    """The time given by `next_timer_s` has come."""


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """The process came back: the first event of its fresh schedule; a loader reads again from `batch`, others ignore the number."""

    batch: int


# --- NN worker (RankSchedule) -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchArrived(Event):
    """The batch's dense features, labels and its reference wait in the rank's input queue."""

    batch: int


@dataclass(frozen=True, slots=True)
class LookedUp(Event):
    """The batch's pooled embeddings are on the rank's device."""

    batch: int


@dataclass(frozen=True, slots=True)
class LookupFailed(Event):
    """The lookup was lost; the batch keeps its permit and is asked for again."""

    batch: int


@dataclass(frozen=True, slots=True)
class DenseDone(Event):
    """Forward, backward, the dense gradient's all-reduce (if asked for) and the optimizer step are done."""

    batch: int


@dataclass(frozen=True, slots=True)
class DenseExchanged(Event):
    """The dense gradients up to this batch are applied on the servers and fresh dense parameters are here (async mode)."""

    batch: int


@dataclass(frozen=True, slots=True)
class Pushed(Event):
    """Every parameter server has applied the batch's embedding gradients."""

    batch: int


@dataclass(frozen=True, slots=True)
class PushFailed(Event):
    """The push or its acknowledgement was lost; the batch keeps its permit and is pushed again."""

    batch: int


@dataclass(frozen=True, slots=True)
class BarrierPassed(Event):
    """Every rank has entered the barrier of this step."""

    step: int


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """The checkpoint of this step is cut; training may go on (writing it continues in the background)."""

    step: int


@dataclass(frozen=True, slots=True)
class Lookup(Command):
    """Fetch the batch's pooled embeddings; answer LookedUp or LookupFailed."""

    batch: int


@dataclass(frozen=True, slots=True)
class TrainDense(Command):
    """Queue forward and backward as one piece, with the reduction that `Limits.reduction` names; answer DenseDone."""

    batch: int


@dataclass(frozen=True, slots=True)
class ExchangeDense(Command):
    """Send the dense gradients accumulated up to this batch until they arrive, fetch fresh parameters; answer DenseExchanged."""

    batch: int


@dataclass(frozen=True, slots=True)
class Push(Command):
    """Send the batch's embedding gradients; answer Pushed or PushFailed."""

    batch: int


@dataclass(frozen=True, slots=True)
class CommitBatch(Command):
    """Tell the loader, which has sent a finished batch again, that it is finished; the loader hears BatchCommitted."""

    batch: int


@dataclass(frozen=True, slots=True)
class EnterBarrier(Command):
    """Tell every rank that all batches up to this step are applied; answer BarrierPassed."""

    step: int


@dataclass(frozen=True, slots=True)
class SaveCheckpoint(Command):
    """Cut the dense model and every shard at this step; answer CheckpointSaved."""

    step: int


# --- embedding worker (WorkerSchedule) ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FeaturesArrived(Event):
    """A loader's ID features of the batch are in the worker's buffer."""

    batch: int


@dataclass(frozen=True, slots=True)
class LookupAsked(Event):
    """The batch's rank asks for its pooled embeddings."""

    batch: int


@dataclass(frozen=True, slots=True)
class RowsArrived(Event):
    """`server` answered its part of the batch's lookup."""

    batch: int
    server: int


@dataclass(frozen=True, slots=True)
class GradientsArrived(Event):
    """The batch's rank sent the gradients of its pooled embeddings."""

    batch: int


@dataclass(frozen=True, slots=True)
class UpdateAcked(Event):
    """`server` has applied its part of the batch's update."""

    batch: int
    server: int


@dataclass(frozen=True, slots=True)
class ServerFailed(Event):
    """A request of the batch to `server` was lost, refused or timed out."""

    batch: int
    server: int


@dataclass(frozen=True, slots=True)
class FanOutLookup(Command):
    """Dedup the batch's IDs, ask every server for its part; answer RowsArrived or ServerFailed per server (or EVERY_SERVER)."""

    batch: int


@dataclass(frozen=True, slots=True)
class ReplyRows(Command):
    """Pool the batch's rows and send them to its rank."""

    batch: int


@dataclass(frozen=True, slots=True)
class FanOutUpdate(Command):
    """Un-pool and sum the batch's gradients per unique ID, send every server its part; answer UpdateAcked or ServerFailed."""

    batch: int


@dataclass(frozen=True, slots=True)
class ReplyAck(Command):
    """Tell the rank that the batch's update is applied everywhere."""

    batch: int


@dataclass(frozen=True, slots=True)
class RetryLookup(Command):
    """Ask one server again for its part of the batch's lookup (same request number)."""

    batch: int
    server: int


@dataclass(frozen=True, slots=True)
class RetryUpdate(Command):
    """Send one server its part of the batch's update again (same request number)."""

    batch: int
    server: int


@dataclass(frozen=True, slots=True)
class Expire(Command):
    """Forget the batch: nobody came for it, or its features never came.

    Its loader hears BatchExpired, its rank LookupFailed and PushFailed; each ignores what it does not wait for.
    """

    batch: int


@dataclass(frozen=True, slots=True)
class GrantCredit(Command):
    """Tell the batch's loader that the rank has taken the batch and the buffer has room for one more."""

    batch: int


# --- parameter server (ServerSchedule) ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LookupQueued(Event):
    """A lookup request arrived; the batch number is the request number."""

    batch: int


@dataclass(frozen=True, slots=True)
class UpdateQueued(Event):
    """An update request arrived; the batch number is the request number, by which a repeated one is known."""

    batch: int


@dataclass(frozen=True, slots=True)
class LookupServed(Event):
    """The rows are copied out and on their way."""

    batch: int


@dataclass(frozen=True, slots=True)
class UpdateApplied(Event):
    """The optimizer has applied the batch's part (in sync mode: the whole step's sum)."""

    batch: int


@dataclass(frozen=True, slots=True)
class SnapshotAsked(Event):
    """A checkpoint of this step is to be cut; each step is cut once, whoever asks and however often."""

    step: int


@dataclass(frozen=True, slots=True)
class SnapshotCut(Event):
    """The shard's snapshot of this step is consistent; updates may go on."""

    step: int


@dataclass(frozen=True, slots=True)
class ServeLookup(Command):
    """Copy the rows out and reply; answer LookupServed."""

    batch: int


@dataclass(frozen=True, slots=True)
class ApplyUpdate(Command):
    """Apply the batch's part; answer UpdateApplied."""

    batch: int


@dataclass(frozen=True, slots=True)
class ApplyStep(Command):
    """Sum the gradients of all ranks' batches of this step, apply the optimizer once; answer UpdateApplied per batch."""

    step: int


@dataclass(frozen=True, slots=True)
class Acknowledge(Command):
    """Tell the worker that the batch's part is applied (again, if the first acknowledgement was lost)."""

    batch: int


@dataclass(frozen=True, slots=True)
class CutSnapshot(Command):
    """Take a consistent snapshot of the shard; answer SnapshotCut."""

    step: int


# --- data loader (LoaderSchedule) ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchRead(Event):
    """The batch is parsed and ready to leave."""

    batch: int


@dataclass(frozen=True, slots=True)
class CreditGranted(Event):
    """The batch was taken from its rank's input queue: one more may be sent to that rank."""

    batch: int


@dataclass(frozen=True, slots=True)
class BatchExpired(Event):
    """The batch must be sent again: a worker forgot it or restarted without it, or its rank could not be reached."""

    batch: int


@dataclass(frozen=True, slots=True)
class BatchCommitted(Event):
    """The batch's rank has heard Pushed (or has said CommitBatch): the batch need not be replayed."""

    batch: int


@dataclass(frozen=True, slots=True)
class ReadBatch(Command):
    """Read and parse the batch; answer BatchRead."""

    batch: int


@dataclass(frozen=True, slots=True)
class SendBatch(Command):
    """Send ID features to `worker`, dense features and labels to `rank`."""

    batch: int
    worker: int
    rank: int


@dataclass(frozen=True, slots=True)
class CommitOffset(Command):
    """Every batch before `batch` is trained: a restart continues from here."""

    batch: int
