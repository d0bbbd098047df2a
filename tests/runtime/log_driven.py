"""Training in the order that a run's logs tell: what was looked up, trained and applied when, in one process of plain PyTorch.

Asynchronous training depends on that order and on nothing else.  Every server and every rank becomes a queue of steps;
a step is carried out when those that it needs have been: a lookup copies rows as they are on the server then, a batch is
trained on its copies, an update changes the server's rows.  That no queue is ever stuck shows that the logs' order is one
that can have happened.

Shapes: B samples of a batch, F features of a group, R rows of each, D its dim, P dense parameters.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from persia.embedding.hashing import initial_rows
from persia.embedding.placement import server_of
from persia.runtime.dense_exchange import slices
from persia.runtime.node import open_run_data
from persia.schedule import messages as m
from persia.schedule.modes import Reduction
from persia.trace import Span
from tests.runtime.plain_torch import DENSE_OPTIMIZERS, SPARSE_OPTIMIZERS, PlainModel, one_thread, pooled, table_keys, table_rows
from tests.runtime.runs import Run

Step = tuple[Callable[[], bool], Callable[[], None]]  # whether it can be carried out; carry it out


class Server:
    """One server's rows of every table: those that it owns, in tables of full size [F R, D]."""

    def __init__(self, run: Run, index: int) -> None:
        plan, model = run.plan, run.plan.scenario.model
        self.owned, self.tables, self.optimizers = [], [], []
        for group, spec, feature in zip(plan.groups, plan.table_specs(), model.features, strict=True):
            keys = table_keys(group)
            self.owned.append(torch.from_numpy(server_of(keys, plan.servers) == index))
            self.tables.append(nn.Parameter(torch.from_numpy(initial_rows(keys, spec))))
            self.optimizers.append(SPARSE_OPTIMIZERS[feature.optimizer]([self.tables[-1]], lr=model.embedding_learning_rate))

    def update(self, place: int, touched: Tensor, gradient: Tensor, *, sparse: bool) -> None:
        """Apply a gradient [F R, D] to the touched rows that this server owns."""
        own = touched[self.owned[place][touched]]
        if sparse:
            grad = torch.sparse_coo_tensor(own[None], gradient[own], gradient.shape, is_coalesced=True, check_invariants=False)
        else:
            grad = torch.zeros_like(gradient)
            grad[own] = gradient[own]
        self.tables[place].grad = grad
        self.optimizers[place].step()


class LogDriven:
    """A whole run, once more."""

    def __init__(self, run: Run) -> None:
        self.run, self.plan = run, run.plan
        plan, model = run.plan, run.plan.scenario.model
        data = open_run_data(plan)
        self.batches = [data.batch(number) for number in range(plan.stop_batch)]
        self.kinds = [feature.optimizer for feature in model.features]
        self.servers = [Server(run, index) for index in range(plan.servers)]
        self.reduced = plan.header.rank.reduction is not Reduction.NONE
        self.models = [PlainModel(plan) for _ in range(1 if self.reduced else plan.ranks)]
        self.copies: dict[int, list[Tensor]] = {}  # batch -> its copies of the tables [F R, D], as far as servers were asked
        self.asked: dict[int, int] = defaultdict(int)  # batch -> servers that have answered
        self.gradients: dict[int, list[Tensor]] = {}  # batch -> gradients of its copies
        self.dense_gradients: dict[int, Tensor] = {}  # batch -> [P]; reduced once those of a step are there
        self.steps_done = 0
        self.sent: dict[int, Tensor] = {}  # async: exchange -> gradient [P]
        self.slices_back: dict[int, dict[int, Tensor]] = defaultdict(dict)  # async: exchange -> server -> its slice
        self.names = [name.removeprefix("parameter/") for name in run.dense() if name.startswith("parameter/")]
        vector = parameters_to_vector(self.models[0].named[name] for name in self.names).detach()
        self.cuts = slices(len(vector), plan.servers)
        self.waiting = [torch.zeros_like(vector) for _ in range(plan.ranks)]  # async: accumulated gradients
        self.vectors = [nn.Parameter(vector[cut].clone()) for cut in self.cuts] if not self.reduced else [nn.Parameter(vector.clone())]
        kind = DENSE_OPTIMIZERS[model.dense.optimizer]
        self.optimizers = [kind([part], lr=model.dense.learning_rate) for part in self.vectors]

    def train(self) -> LogDriven:
        """Carry out every step of every queue."""
        with one_thread():
            self._carry_out(self._queues())
        return self

    def _carry_out(self, queues: list[deque[Step]]) -> None:
        moved = True
        while moved:
            moved = False
            for queue in queues:
                while queue and queue[0][0]():
                    queue.popleft()[1]()
                    moved = True
        assert not any(queues), "the logs tell an order that cannot have happened"

    def _queues(self) -> list[deque[Step]]:
        logs = self.run.logs()
        queues = []
        for name, (_, entries) in logs.items():
            index = int(name.rpartition("-")[2])
            queue: deque[Step] = deque()
            for entry in entries:
                steps = (self._step_of(index, word) for word in (entry.event, *entry.commands))
                queue.extend(step for step in steps if step is not None)
            queues.append(queue)
        return queues + self._dense_queues()

    def _step_of(self, index: int, word: m.Word) -> Step | None:
        match word:
            case m.ServeLookup(batch):
                return lambda: True, lambda: self._look_up(index, batch)
            case m.ApplyUpdate(batch):
                return lambda: batch in self.gradients, lambda: self._update(index, [batch])
            case m.ApplyStep(step):
                batches = range(step * self.plan.ranks, (step + 1) * self.plan.ranks)
                return lambda: all(batch in self.gradients for batch in batches), lambda: self._update(index, batches)
            case m.TrainDense(batch):
                return lambda: self._can_train(batch), lambda: self._train(index, batch)
            case m.DenseDone(batch):
                return lambda: batch in self.gradients, lambda: self._trained(index, batch)
            case m.ExchangeDense(batch):
                return lambda: batch in self.gradients, lambda: self._send(index, batch)
            case m.DenseExchanged(batch):
                return lambda: len(self.slices_back[batch]) == self.plan.servers, lambda: self._exchanged(index, batch)
        return None

    # --- embeddings -------------------------------------------------------------------------------------------

    def _look_up(self, index: int, batch: int) -> None:
        server = self.servers[index]
        copies = self.copies.setdefault(batch, [torch.zeros_like(table) for table in server.tables])
        for copy, table, owned in zip(copies, server.tables, server.owned, strict=True):
            copy[owned] = table.detach()[owned]
        self.asked[batch] += 1

    def _update(self, index: int, batches: Sequence[int]) -> None:
        for place, group in enumerate(self.plan.groups):
            touched = torch.cat([table_rows(self.batches[batch], place, group) for batch in batches]).unique()
            gradient = torch.stack([self.gradients[batch][place] for batch in batches]).sum(0)
            self.servers[index].update(place, touched, gradient, sparse=self.kinds[place] == "adam")

    # --- the dense part ---------------------------------------------------------------------------------------

    def _can_train(self, batch: int) -> bool:
        in_turn = not self.reduced or self.steps_done == batch // self.plan.ranks
        return self.asked[batch] == self.plan.servers and in_turn

    def _train(self, rank: int, batch: int) -> None:
        """Forward and backward; where gradients are reduced, the last rank of a step also steps the optimizer."""
        model = self.models[0 if self.reduced else rank]
        model.zero_grad()
        copies = [copy.requires_grad_(True) for copy in self.copies.pop(batch)]
        data = self.batches[batch]
        embeddings = [pooled(copy, data, place, group) for place, (copy, group) in enumerate(zip(copies, self.plan.groups, strict=True))]
        logits = model(torch.from_numpy(data.dense), embeddings)
        functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(data.labels)).backward()
        self.gradients[batch] = [copy.grad * self.plan.gradient_scale for copy in copies]
        self.dense_gradients[batch] = parameters_to_vector(model.named[name].grad for name in self.names)
        step = batch // self.plan.ranks
        batches = range(step * self.plan.ranks, (step + 1) * self.plan.ranks)
        if self.reduced and all(other in self.dense_gradients for other in batches):
            self._apply_dense(0, torch.stack([self.dense_gradients[other] for other in batches]).mean(0))
            self._install(model, self.vectors[0])
            self.steps_done += 1

    def _apply_dense(self, index: int, gradient: Tensor) -> None:
        self.vectors[index].grad = gradient
        self.optimizers[index].step()

    def _install(self, model: PlainModel, vector: Tensor) -> None:
        vector_to_parameters(vector.detach().clone(), [model.named[name] for name in self.names])

    # --- dense parameters through the servers (mode async) ----------------------------------------------------

    def _trained(self, rank: int, batch: int) -> None:
        if not self.reduced:
            self.waiting[rank] += self.dense_gradients[batch] * self.plan.gradient_scale

    def _send(self, rank: int, batch: int) -> None:
        self.sent[batch], self.waiting[rank] = self.waiting[rank], torch.zeros_like(self.waiting[rank])

    def _dense_queues(self) -> list[deque[Step]]:
        """Each server's updates of its slice, in the order of the trace: they are no part of the schedules."""
        spans = [record for record in self.run.trace() if isinstance(record, Span) and record.name == "dense update"]
        queues: list[deque[Step]] = [deque() for _ in self.servers]
        for span in sorted(spans, key=lambda span: span.start_s):
            queues[span.index].append((partial(self.sent.__contains__, span.batch), partial(self._update_slice, span.index, span.batch)))
        return queues

    def _update_slice(self, index: int, batch: int) -> None:
        self._apply_dense(index, self.sent[batch][self.cuts[index]])
        self.slices_back[batch][index] = self.vectors[index].detach().clone()

    def _exchanged(self, rank: int, batch: int) -> None:
        """The rank goes on with each server's slice as it was after its own gradient."""
        self._install(self.models[rank], torch.cat([self.slices_back[batch][index] for index in range(self.plan.servers)]))

    # --- what was trained -------------------------------------------------------------------------------------

    def dense(self) -> npt.NDArray[np.float32]:
        """All dense parameters [P]."""
        return torch.cat([vector.detach() for vector in self.vectors]).numpy()

    def rows(self, place: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
        """Keys and values of the rows that any batch has asked for, by ascending key."""
        table = torch.zeros_like(self.servers[0].tables[place])
        for server in self.servers:
            table.data[server.owned[place]] = server.tables[place].detach()[server.owned[place]]
        seen = torch.cat([table_rows(batch, place, self.plan.groups[place]) for batch in self.batches]).unique()
        return table_keys(self.plan.groups[place])[seen.numpy()], table.detach().numpy()[seen]
