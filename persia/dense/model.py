"""The dense network: embeddings and numeric features in, one logit a sample out.

Shapes: B samples, F features of a group, D its dim, W width inside the network, N rows of a raw group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from persia.dense import kernels
from persia.dense.interaction import DotInteraction
from persia.dense.spec import DenseSpec
from persia.dense.tower import Tower

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBags:
    """A group whose rows come un-pooled: rows [N,D]; bag f*B+s holds rows[offsets[f*B+s] : offsets[f*B+s+1]].

    `offsets` is int32 [F*B+1], starts with 0 and ends with N; the model sums each bag.
    """

    rows: Tensor
    offsets: Tensor


Embeddings = Sequence[Tensor | RawBags]


class DenseModel(nn.Module):
    """An mlp: all inputs, concatenated, through the layers. A dlrm: dense features through a bottom network, then dot interaction.

    Weights are fp32. On an accelerator fp16 and bf16 run under autocast. On a CPU bf16 is used for the layers' products where
    the processor multiplies it; all other work is fp32, whatever the spec's precision.
    """

    def __init__(self, spec: DenseSpec) -> None:
        super().__init__()
        self.spec = spec
        self.projections = nn.ParameterDict({str(dim): nn.Parameter(torch.empty(width, dim)) for dim, width in spec.projections})
        if spec.architecture == "dlrm":
            self.bottom = Tower(spec.bottom_widths, last_relu=True)
            self.interaction = DotInteraction(spec.features + 1, spec.bottom_widths[-1])
        self.top = Tower(spec.top_widths, last_relu=False)
        self._cpu_dtype = torch.bfloat16 if spec.precision == "bf16" and kernels.MULTIPLIES_BF16 else torch.float32
        self.loss_scale = LossScale(enabled=spec.precision == "fp16")

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        """Return logits [B] in fp32 of dense features [B, dense features] and each group's embeddings [B,F,D] or RawBags.

        Raises:
            ValueError: The embeddings are not those of the spec's groups.
        """
        half = _HALF.get(self.spec.precision)
        if half is not None and dense.is_cuda:
            with torch.autocast("cuda", dtype=half):
                return self._logits(dense, embeddings).float()
        return self._logits(dense, embeddings)

    def _logits(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        vectors = self._vectors(len(dense), embeddings)
        if self.spec.architecture == "dlrm":
            inputs = self.interaction(self.bottom(dense, self._cpu_dtype), vectors)
        else:
            inputs = torch.cat([dense, *(group.flatten(1) for group in vectors)], 1)
        logits: Tensor = self.top(inputs, self._cpu_dtype).squeeze(1)
        return logits

    def _vectors(self, samples: int, embeddings: Embeddings) -> tuple[Tensor, ...]:
        """Return every group as [B,F,W]: bags summed, projected where the spec says so."""
        groups = self.spec.groups
        if len(embeddings) != len(groups):
            raise ValueError(f"embeddings of {len(embeddings)} groups; the model has {len(groups)}")
        vectors = []
        for place, (group, (features, dim, _)) in enumerate(zip(embeddings, groups, strict=True)):
            pooled = sum_bags(group, samples) if isinstance(group, RawBags) else group
            if pooled.shape != (samples, features, dim):
                raise ValueError(f"embeddings of group {place} are {tuple(pooled.shape)}; expected {(samples, features, dim)}")
            vectors.append(self._project(pooled) if self.projections else pooled)
        return tuple(vectors)

    def _project(self, pooled: Tensor) -> Tensor:
        samples, features, dim = pooled.shape
        weight = self.projections[str(dim)]
        rows = pooled.reshape(samples * features, dim)
        return kernels.project(rows, weight).view(samples, features, len(weight))


class LossScale:
    """By what the loss is multiplied before backward so that small fp16 gradients survive: torch.amp.GradScaler's rule.

    It doubles after `GROWTH_BATCHES` batches of finite gradients and halves after one that was not; 1 where not enabled.
    """

    GROWTH_BATCHES = 2000

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = 65536.0 if enabled else 1.0
        self.refused = 0  # batches whose dense gradients were not finite
        self._good = 0

    def update(self, *, finite: bool) -> None:
        """Note whether one batch's gradients were finite."""
        self.refused += not finite
        self._good = self._good + 1 if finite else 0
        if self.enabled and not finite:
            self.scale /= 2.0
        elif self.enabled and self._good == self.GROWTH_BATCHES:
            self.scale *= 2.0
            self._good = 0


def build(spec: DenseSpec) -> DenseModel:
    """Return the model on the CPU in fp32; the same seed gives the same weights in every process.

    Weights and biases are drawn as torch.nn.Linear draws them, U(-1/sqrt(inputs), 1/sqrt(inputs)), in forward order from a
    generator of their own.
    """
    model = DenseModel(spec)
    generator = torch.Generator().manual_seed(spec.seed)
    bound = 0.0
    with torch.no_grad():
        for weight, bias in _pairs(model):
            bound = 1.0 / sqrt(max(1, weight.shape[1]))
            for tensor in (weight, bias):
                if tensor is not None:
                    tensor.uniform_(-bound, bound, generator=generator)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = spec.precision == "tf32"
    return model


def _pairs(model: DenseModel) -> list[tuple[Tensor, Tensor | None]]:
    towers = [model.bottom, model.top] if model.spec.architecture == "dlrm" else [model.top]
    layers: list[tuple[Tensor, Tensor | None]] = [(weight, None) for weight in model.projections.values()]
    for tower in towers:
        layers.extend(zip(tower.weights, tower.biases, strict=True))
    return layers


def sum_bags(bags: RawBags, samples: int) -> Tensor:
    """Return the sum of each bag, [B,F,D]; zeros where a bag is empty. Gradients go back to `bags.rows`.

    Raises:
        ValueError: `offsets` is not of whole features.
    """
    count = len(bags.offsets) - 1
    if samples < 1 or count % samples:
        raise ValueError(f"offsets of {count} bags for {samples} samples: not a whole number of features")
    lengths = bags.offsets.diff().long()
    owner = torch.repeat_interleave(torch.arange(count, device=lengths.device), lengths)
    if len(owner) != len(bags.rows):
        raise ValueError(f"offsets of {len(owner)} rows for {len(bags.rows)} rows")
    return _sum_bags(bags.rows, owner, count).view(count // samples, samples, -1).transpose(0, 1)


class _SumBags(torch.autograd.Function):
    """Sum of rows [N,D] by owner [N] into [count,D]; its gradient is one gather."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, owner: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(owner)
        return rows.new_zeros(count, rows.shape[1]).index_add_(0, owner, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (owner,) = ctx.saved_tensors
        return gradient.index_select(0, owner), None, None


_sum_bags: Callable[..., Tensor] = _SumBags.apply
