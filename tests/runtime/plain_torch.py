"""The same training in one process and in plain PyTorch: what a run of many processes must equal.

Nothing of persia computes here; it only gives the first weights, the first rows and the batches.  Tables are ordinary
parameters with autograd's gradients, the batches of all ranks are trained as one.

Shapes: B samples of a batch, F features of a group, R rows of each, D its dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from persia.data import Batch
from persia.dense import build
from persia.embedding.hashing import initial_rows
from persia.embedding.placement import row_keys
from persia.runtime.node import open_run_data
from persia.runtime.plan import Group, Plan
from persia.runtime.trainer import dense_spec


@contextmanager
def one_thread() -> Iterator[None]:
    """These tensors are tiny: on a busy machine a second thread makes everything ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class RowwiseAdagrad(torch.optim.Optimizer):
    """One sum a row, of its mean squared gradient: fbgemm's EXACT_ROWWISE_ADAGRAD, which torch does not have."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            total = self.state[parameter].setdefault("sum", torch.zeros_like(parameter[:, :1]))
            total += parameter.grad.square().mean(1, keepdim=True)
            parameter.sub_(self.param_groups[0]["lr"] * parameter.grad / (total.sqrt() + 1e-10))


DENSE_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}
SPARSE_OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rowwise-adagrad": RowwiseAdagrad,
    "adam": torch.optim.SparseAdam,
}
STATES = {"sgd": (), "adagrad": ("sum",), "rowwise-adagrad": ("sum",), "adam": ("exp_avg", "exp_avg_sq")}


def tower(widths: Sequence[int], *, last_relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


class PlainModel(nn.Module):
    """Both architectures out of torch's own layers, with the weights that a run begins with."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        spec = dense_spec(plan)
        self.projections = nn.ModuleDict({str(dim): nn.Linear(dim, width, bias=False) for dim, width in spec.projections})
        self.bottom = tower(spec.bottom_widths, last_relu=True) if spec.architecture == "dlrm" else None
        self.top = tower(spec.top_widths, last_relu=False)
        first = dict(build(spec).named_parameters())
        self.named = dict(self._named())
        assert self.named.keys() == first.keys()
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(first[name])

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter by the name that checkpoints have for it."""
        for dim, projection in self.projections.items():
            yield f"projections.{dim}", projection.weight
        for name in ("bottom", "top"):
            linears = [layer for layer in getattr(self, name) or () if isinstance(layer, nn.Linear)]
            for place, linear in enumerate(linears):
                yield f"{name}.weights.{place}", linear.weight
                yield f"{name}.biases.{place}", linear.bias

    def forward(self, dense: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """Logits [B] of dense features and each group's [B, F, D]."""
        if len(self.projections):
            pooled = [self.projections[str(group.shape[2])](group) for group in pooled]
        if self.bottom is None:
            return self.top(torch.cat([dense, *(group.flatten(1) for group in pooled)], 1)).squeeze(1)
        below = self.bottom(dense)
        vectors = torch.cat([below[:, None], *pooled], 1)
        first, second = torch.tril_indices(vectors.shape[1], vectors.shape[1], -1)
        dots = torch.bmm(vectors, vectors.mT)[:, first, second]
        return self.top(torch.cat([below, dots], 1)).squeeze(1)


def table_keys(group: Group) -> npt.NDArray[np.uint64]:
    """The keys of a whole table [F R], a feature's rows after those of another."""
    return np.concatenate([row_keys(group.first + feature, np.arange(group.rows)) for feature in range(group.features)])


def table_rows(batch: Batch, place: int, group: Group) -> Tensor:
    """The positions in its table of all the IDs of a batch."""
    bags = batch.groups[place]
    lengths = torch.from_numpy(bags.offsets).long().diff()
    feature = torch.repeat_interleave(torch.arange(len(lengths)) // len(batch.labels), lengths)
    return torch.from_numpy(bags.ids) + feature * group.rows


def pooled(table: Tensor, batch: Batch, place: int, group: Group, *, sparse: bool = False) -> Tensor:
    """The embeddings [B, F, D] of one group, out of its table [F R, D]; a raw group's network sums its rows."""
    offsets = torch.from_numpy(batch.groups[place].offsets).long()
    lengths = offsets.diff()
    weights = torch.repeat_interleave(lengths**-0.5, lengths) if group.pooling == "sqrtn" else None
    mode = "mean" if group.pooling == "mean" else "sum"
    bags = functional.embedding_bag(
        table_rows(batch, place, group), table, offsets, mode=mode, sparse=sparse, per_sample_weights=weights, include_last_offset=True
    )
    return bags.view(group.features, len(batch.labels), -1).transpose(0, 1)


class PlainTraining:
    """A whole run in synchronous steps."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.batches = [open_run_data(plan).batch(number) for number in range(plan.stop_batch)]
        self.model = PlainModel(plan)
        model = plan.scenario.model
        self.kinds = [feature.optimizer for feature in model.features]
        self.keys = [table_keys(group) for group in plan.groups]
        self.tables = [
            nn.Parameter(torch.from_numpy(initial_rows(keys, spec))) for keys, spec in zip(self.keys, plan.table_specs(), strict=True)
        ]
        self.optimizers = [DENSE_OPTIMIZERS[model.dense.optimizer](self.model.parameters(), lr=model.dense.learning_rate)]
        for kind, table in zip(self.kinds, self.tables, strict=True):
            self.optimizers.append(SPARSE_OPTIMIZERS[kind]([table], lr=model.embedding_learning_rate))

    def train(self) -> PlainTraining:
        """Train every step."""
        with one_thread():
            self._train()
        return self

    def _train(self) -> None:
        for first in range(0, self.plan.stop_batch, self.plan.ranks):
            self._step(self.batches[first : first + self.plan.ranks])

    def _step(self, batches: Sequence[Batch]) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        embeddings = []
        for place, (table, group, kind) in enumerate(zip(self.tables, self.plan.groups, self.kinds, strict=True)):
            embeddings.append(torch.cat([pooled(table, batch, place, group, sparse=kind == "adam") for batch in batches]))
        dense = torch.from_numpy(np.concatenate([batch.dense for batch in batches]))
        labels = torch.from_numpy(np.concatenate([batch.labels for batch in batches]))
        functional.binary_cross_entropy_with_logits(self.model(dense, embeddings), labels).backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def dense(self) -> dict[str, npt.NDArray[np.float32]]:
        """Every dense parameter by the name that checkpoints have for it."""
        return {f"parameter/{name}": parameter.detach().numpy() for name, parameter in self.model.named.items()}

    def rows(self, place: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Keys, values and optimizer state of the rows that any batch has asked for, by ascending key."""
        group, table, kind = self.plan.groups[place], self.tables[place], self.kinds[place]
        seen = torch.cat([table_rows(batch, place, group) for batch in self.batches]).unique()
        values = table.detach()[seen]
        state = [self.optimizers[place + 1].state[table][name][seen] for name in STATES[kind]]
        return self.keys[place][seen.numpy()], values.numpy(), torch.cat([values[:, :0], *state], 1).numpy()

    def held_out(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Labels of the held-out samples and the trained model's probabilities; rows that no batch had are zero."""
        tables = []
        for place, (table, group) in enumerate(zip(self.tables, self.plan.groups, strict=True)):
            seen = torch.cat([table_rows(batch, place, group) for batch in self.batches]).unique()
            tables.append(torch.zeros_like(table).index_copy(0, seen, table.detach()[seen]))
        labels, probabilities = [], []
        for batch in open_run_data(self.plan).held_out(100):
            embeddings = [pooled(table, batch, place, self.plan.groups[place]) for place, table in enumerate(tables)]
            logits = self.model(torch.from_numpy(batch.dense), embeddings).detach()
            labels.append(batch.labels)
            probabilities.append(torch.sigmoid(logits.double()).numpy())
        return np.concatenate(labels), np.concatenate(probabilities)
