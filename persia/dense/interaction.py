"""DLRM's dot interaction (Naumov et al., 2019): the bottom network's output and the dot products of all pairs of vectors.

On a CPU it runs over slices of the batch that stay in the cache between the batched product and the gather of its lower
triangle, and the backward gathers the symmetric matrix of gradients instead of scattering: one product, no index_put.

Shapes: B samples, W width of a vector, V vectors of a sample (bottom output first), R V rounded up (zero rows: batched
products of even sizes run faster), P = V (V - 1) / 2 pairs in the order (1,0), (2,0), (2,1), (3,0), ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ROUND_ROWS = 4
_SLICE_VALUES = 1 << 19  # of a thread's slice of vectors: 2 MiB; smaller ones cost more calls than they save cache misses
_MOST_GROUPS = 4  # above, one concatenation beats copying every group into every slice


class DotInteraction(nn.Module):
    """Concatenates the bottom output [B,W] and the P pairwise dots to [B,W+P]; holds the two index tables."""

    columns: Tensor  # the P of a sample's R*R products that are kept, in order
    plain_columns: Tensor  # the same where rows are not rounded up
    partners: Tensor  # for each of the R*R products: its column in [B,W+P] (any, on the diagonal and in rounding)

    def __init__(self, vectors: int, width: int) -> None:
        super().__init__()
        rows = -(-vectors // _ROUND_ROWS) * _ROUND_ROWS
        first, second = torch.tril_indices(vectors, vectors, -1)
        products = first * rows + second
        partners = torch.full((rows, rows), width, dtype=torch.int64)
        partners[first, second] = partners[second, first] = width + torch.arange(len(first))
        self.rows = rows
        self.register_buffer("columns", products, persistent=False)
        self.register_buffer("partners", partners.reshape(-1), persistent=False)
        self.register_buffer("plain_columns", first * vectors + second, persistent=False)

    def forward(self, bottom: Tensor, embeddings: tuple[Tensor, ...]) -> Tensor:
        """Return [B,W+P] of the bottom output [B,W] and each group's embeddings [B,F,W]."""
        if not bottom.is_cpu or torch.is_autocast_enabled(bottom.device.type):
            vectors = torch.cat([bottom.unsqueeze(1), *embeddings], 1)
            products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
            return torch.cat([bottom, products.index_select(1, self.plain_columns).to(bottom.dtype)], 1)
        if len(embeddings) > _MOST_GROUPS:
            embeddings = (torch.cat(embeddings, 1),)
        return _dots(self.rows, self.columns, self.partners, bottom, *embeddings)


class _Dots(torch.autograd.Function):
    """The interaction by slices of the batch."""

    @staticmethod
    def forward(ctx: Any, rows: int, columns: Tensor, partners: Tensor, bottom: Tensor, *embeddings: Tensor) -> Tensor:
        samples, width = bottom.shape
        slices = _Slices(rows, bottom, embeddings)
        products = bottom.new_empty(slices.samples, rows, rows)
        kept = bottom.new_empty(slices.samples, len(columns))
        out = bottom.new_empty(samples, width + len(columns))
        out[:, :width] = bottom
        for low, high, vectors in slices:
            part = torch.bmm(vectors, vectors.transpose(1, 2), out=products[: high - low])
            out[low:high, width:] = torch.index_select(part.flatten(1), 1, columns, out=kept[: high - low])
        ctx.save_for_backward(partners, bottom, *embeddings)
        ctx.rows = rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        partners, bottom, *embeddings = ctx.saved_tensors
        rows, width = ctx.rows, bottom.shape[1]
        gradient = gradient.contiguous()
        slices = _Slices(rows, bottom, embeddings)
        symmetric = bottom.new_empty(slices.samples, rows * rows)
        moved = bottom.new_empty(slices.samples, rows, width)
        bottom_gradient = torch.empty_like(bottom)
        gradients = [torch.empty_like(group, memory_format=torch.contiguous_format) for group in embeddings]
        for low, high, vectors in slices:
            flat = torch.index_select(gradient[low:high], 1, partners, out=symmetric[: high - low])
            square = flat.view(-1, rows, rows)
            square.diagonal(dim1=1, dim2=2).zero_()
            part = torch.bmm(square, vectors, out=moved[: high - low])
            torch.add(part[:, 0], gradient[low:high, :width], out=bottom_gradient[low:high])
            row = 1
            for group in gradients:
                group[low:high] = part[:, row : row + group.shape[1]]
                row += group.shape[1]
        return None, None, None, bottom_gradient, *gradients


_dots: Callable[..., Tensor] = _Dots.apply


class _Slices:
    """Iterates over a batch's vectors: (first sample, end, vectors [samples of the slice,R,W]), each slice in one buffer."""

    def __init__(self, rows: int, bottom: Tensor, embeddings: tuple[Tensor, ...] | list[Tensor]) -> None:
        fitting = _SLICE_VALUES * torch.get_num_threads() // (rows * bottom.shape[1])
        self.samples = max(1, min(len(bottom), fitting))
        self._vectors = bottom.new_zeros(self.samples, rows, bottom.shape[1])
        self._bottom, self._embeddings = bottom, embeddings

    def __iter__(self) -> Iterator[tuple[int, int, Tensor]]:
        for low in range(0, len(self._bottom), self.samples):
            high = min(low + self.samples, len(self._bottom))
            vectors = self._vectors[: high - low]
            vectors[:, 0] = self._bottom[low:high]
            row = 1
            for group in self._embeddings:
                vectors[:, row : row + group.shape[1]] = group[low:high]
                row += group.shape[1]
            yield low, high, vectors
