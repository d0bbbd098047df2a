"""The dense part of one rank, on torch: forward, backward, reduction over the ranks, optimizer; called from one thread.

Shapes: B samples, F features of a group, D its dim, N ID occurrences of a raw group, P dense parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from persia.dense import (
    DenseSpec,
    RawBags,
    accept_gradients,
    build,
    flat_gradients,
    flat_parameters,
    load_state_arrays,
    make_optimizer,
    set_flat_parameters,
    state_arrays,
    take_step,
    train_batch,
)
from persia.embedding.precision import decode, encode
from persia.runtime.dense_part import Trained
from persia.runtime.driver import Listener
from persia.runtime.plan import Plan, threads
from persia.runtime.transport import Kind
from persia.schedule.modes import Reduction

Array = np.ndarray[Any, Any]

_MIB = 1 << 20
_COLLECTIVE_TIMEOUT = timedelta(hours=1)  # a rank may wait long for another whose servers are being restarted


class Trainer:
    """The dense model of one rank, the same in every rank at the start."""

    span = "train"

    def __init__(self, plan: Plan, rank: int, device: str) -> None:
        """Build the model; `device` is `cpu` or `cuda`, on which rank r takes accelerator r mod their number."""
        torch.set_num_threads(threads(plan.scenario, "nn_worker"))
        dense = plan.scenario.model.dense
        self._plan = plan
        self._reduction = plan.header.rank.reduction
        self._wire = plan.scenario.schedule.precision.worker_rank
        self._fp16_reduction = plan.scenario.schedule.precision.dense == "fp16"
        self.device = torch.device(f"cuda:{rank % torch.cuda.device_count()}" if device == "cuda" else "cpu")
        self.model = build(dense_spec(plan)).to(self.device)
        self._forward: torch.nn.Module = self.model
        self._optimizer = make_optimizer(dense.optimizer, list(self.model.parameters()), dense.learning_rate)

    def join(self, store: Store, rank: int) -> None:
        """Meet the other ranks; from here on gradients can be reduced."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=self._plan.ranks, timeout=_COLLECTIVE_TIMEOUT)
        if self._reduction is Reduction.OVERLAPPED:
            bucket_mib = max(1, round(self._plan.scenario.schedule.bucket_size / _MIB))
            wrapped = DistributedDataParallel(self.model, bucket_cap_mb=bucket_mib, gradient_as_bucket_view=True)
            if self._fp16_reduction:
                wrapped.register_comm_hook(None, fp16_compress_hook)
            self._forward = wrapped

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return nothing: ranks meet in torch's collectives."""
        return {}

    def begin(self, batch: int) -> None:
        """Nothing comes before `train`."""

    def train(self, batch: int, labels: Array, dense: Array, pooled: Sequence[Array]) -> Trained:
        """Train one batch: labels [B], dense [B, dense features], pooled embeddings as they came from the wire."""
        embeddings = self._embeddings(pooled, len(labels))
        loss, gradients = train_batch(self._forward, self._tensor(dense), embeddings, self._tensor(labels))
        if self._reduction is Reduction.AFTER_BACKWARD and self._plan.ranks > 1:
            self._all_reduce()
        finite = accept_gradients(self.model)
        dense_gradient = None
        if self._reduction is Reduction.NONE:
            vector = flat_gradients(self.model)
            dense_gradient = (vector if finite else torch.zeros_like(vector)).cpu().numpy()
        elif finite:
            take_step(self._optimizer)
        self._optimizer.zero_grad(set_to_none=self._forward is self.model)
        arrays = [array for gradient in gradients for array in encode(gradient.float().cpu().numpy(), self._wire)]
        return Trained(batch=batch, loss=float(loss), gradients=arrays, dense_gradient=dense_gradient)

    def _all_reduce(self) -> None:
        """Average all gradients over the ranks in one piece, nothing overlapping."""
        flat = flat_gradients(self.model)
        sent = flat.half() if self._fp16_reduction else flat
        sent /= self._plan.ranks
        dist.all_reduce(sent)
        start = 0
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad.copy_(sent[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()

    def predict(self, dense: Array, pooled: Sequence[Array]) -> Array:
        """Return the probabilities of a click [B], in double precision; nothing is trained."""
        with torch.no_grad():
            logits = self.model(self._tensor(dense), self._embeddings(pooled, len(dense)))
        probabilities: Array = torch.sigmoid(logits.double()).cpu().numpy()
        return probabilities

    def _embeddings(self, pooled: Sequence[Array], samples: int) -> list[torch.Tensor | RawBags]:
        """Return every group's tensor [B, F, D], or its raw rows [N, D] with offsets."""
        embeddings: list[torch.Tensor | RawBags] = []
        rest = list(pooled)
        for group in self._plan.groups:
            raw = group.pooling == "raw"
            arrays = tuple(rest.pop(0) for _ in range(2 if self._wire == "fp16-scaled" else 1))
            tensor = self._tensor(decode(arrays, self._wire, None)).float()
            tensor = tensor if raw else tensor.view(samples, group.features, group.dim)
            embeddings.append(RawBags(rows=tensor, offsets=self._tensor(rest.pop(0))) if raw else tensor)
        return embeddings

    def _tensor(self, array: Array) -> torch.Tensor:
        """Return the array on the device: shared with it on a CPU, through pinned memory on an accelerator."""
        writable = array if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(writable)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    # --- the dense vector (mode async) and checkpoints --------------------------------------------------------

    def vector(self) -> Array:
        """Return all dense parameters [P]."""
        vector: Array = flat_parameters(self.model).cpu().numpy()
        return vector

    def set_vector(self, vector: Array) -> None:
        """Replace all dense parameters [P]."""
        set_flat_parameters(self.model, torch.from_numpy(vector).to(self.device))

    def state(self) -> dict[str, Array]:
        """Return a copy of parameters and optimizer state by name."""
        return {name: np.array(array) for name, array in state_arrays(self.model, self._optimizer).items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Take parameters and optimizer state from a checkpoint; raises ValueError where they do not fit."""
        load_state_arrays(self.model, self._optimizer, arrays)


def dense_spec(plan: Plan) -> DenseSpec:
    """Return what the dense model is built from; the scenario's seed makes it the same in every rank."""
    dense = plan.scenario.model.dense
    return DenseSpec(
        dense_features=dense.dense_features,
        groups=tuple((group.features, group.dim, group.pooling) for group in plan.groups),
        layers=tuple(dense.layers),
        bottom_layers=None if dense.bottom_layers is None else tuple(dense.bottom_layers),
        projection_dim=dense.projection_dim,
        architecture=dense.architecture,
        precision=dense.precision,
        seed=plan.seed,
    )
