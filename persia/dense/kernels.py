"""Matrix products of the dense layers on a CPU: what autograd would call, by the faster of two libraries.

torch multiplies fp32 matrices with MKL; oneDNN, which it also carries, is a fifth faster on many of a recommender's shapes
(inputs of odd width above all) and adds bias and ReLU on the way.  Elsewhere, and for small products, torch's own is used.

In bf16, which oneDNN multiplies twice as fast where the processor can, sums are fp32 inside a product.

Shapes: B samples, K inputs, N outputs.  x [B,K], weight [N,K], bias [N], y and gradient [B,N].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ONEDNN_LEAST_PRODUCT = 1 << 20  # B*K*N below which the call costs more than it saves
_NARROW = 32  # inputs up to which a weight gradient is computed transposed: the product's long side must be in front
MULTIPLIES_BF16 = torch.cpu._is_avx512_bf16_supported()  # else bf16 is emulated, slower than fp32
_HAS_ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
    """Return y = x weight' + bias, and its positive part if `relu`."""
    if _onednn_pays(x, weight):
        return _onednn(x, weight, bias, "relu" if relu else "none")
    y = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
    return y.relu_() if relu else y


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient [B,K] of a linear layer's input."""
    if _onednn_pays(gradient, weight.t()):
        return _onednn(gradient, weight.t(), None, "none")
    return gradient @ weight


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient [N,K] of a linear layer's weight."""
    if x.shape[1] <= min(_NARROW, gradient.shape[1]):
        return (x.t() @ gradient).t().contiguous()
    if gradient.dtype == torch.float32 and _onednn_pays(gradient.t(), x.t()):
        return _onednn(gradient.t(), x.t(), None, "none")
    return gradient.t() @ x


def _onednn_pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN can and should compute x weight'; rows with gaps would fall to its reference loops."""
    return (
        _HAS_ONEDNN
        and x.is_cpu
        and x.dtype == weight.dtype
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and MULTIPLIES_BF16))
        and x.shape[0] * weight.shape[0] * weight.shape[1] >= _ONEDNN_LEAST_PRODUCT
        and min(*x.shape, *weight.shape) > 1
        and (x.is_contiguous() or x.t().is_contiguous())
        and (weight.is_contiguous() or weight.t().is_contiguous())
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, after: str) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, after, [], "")
    return y


def project(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight', differentiable; by the products above where they apply."""
    if not x.is_cpu or torch.is_autocast_enabled(x.device.type):
        return x @ weight.t()
    return _project(x, weight)


class _Project(torch.autograd.Function):
    """A linear layer without bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, None, relu=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        return input_gradient(gradient, weight) if ctx.needs_input_grad[0] else None, weight_gradient(gradient, x)


_project: Callable[[Tensor, Tensor], Tensor] = _Project.apply
