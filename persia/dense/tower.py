"""A tower of linear layers with ReLU between them; on a CPU in full precision with a backward of its own.

Autograd would write each layer's masked gradient into new memory.  Here the layer ABOVE masks the gradient it has just
computed, in place: it has the ReLU's output, its own input, at hand.  So the gradient between two layers of a tower is
that of the value before the ReLU; nothing outside a tower sees it.

Shapes: B samples, K inputs, N outputs of a layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from persia.dense import kernels


class _Layer(torch.autograd.Function):
    """y = relu(x weight' + bias) or without ReLU; see the module's text for who masks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool, mask_input: bool, mask_output: bool) -> Tensor:
        y = kernels.linear(x, weight, bias, relu=relu)
        ctx.save_for_backward(x, weight, y if mask_output else None)
        ctx.mask_input = mask_input
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None, None]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        gradient = gradient.contiguous()
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = kernels.input_gradient(gradient, weight)
            if ctx.mask_input:
                torch.ops.aten.threshold_backward(x_gradient, x, 0, grad_input=x_gradient)
        return x_gradient, kernels.weight_gradient(gradient, x), gradient.sum(0), None, None, None


_layer: Callable[..., Tensor] = _Layer.apply


class Tower(nn.Module):
    """Linear layers of the given widths with ReLU after each but the last, and after the last if `last_relu`."""

    def __init__(self, widths: tuple[int, ...], *, last_relu: bool) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(outputs, inputs) for inputs, outputs in pairs)
        self.biases = nn.ParameterList(torch.empty(outputs) for _, outputs in pairs)
        self.relus = (*(True for _ in pairs[1:]), last_relu)

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the last layer's values [B,N] of x [B,K]; on a CPU `dtype` bfloat16 makes the products in between bf16."""
        own = x.is_cpu and not torch.is_autocast_enabled(x.device.type)
        wanted = x.dtype
        half = own and dtype == torch.bfloat16
        x = x.to(dtype) if half else x
        last = len(self.relus) - 1
        for index, (weight, bias, relu) in enumerate(zip(self.weights, self.biases, self.relus, strict=True)):
            if half:
                x = _layer(x, weight.to(dtype), bias.to(dtype), relu, index > 0, relu and index == last)
            elif own:
                x = _layer(x, weight, bias, relu, index > 0, relu and index == last)
            else:
                x = functional.linear(x, weight, bias)
                x = x.relu_() if relu else x
        return x.to(wanted) if half else x
