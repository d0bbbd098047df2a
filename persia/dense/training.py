"""One batch's forward and backward, and the optimizers of the dense parameters.

Shapes: B samples, F features of a group, D its dim, N rows of a raw group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from persia.dense.model import DenseModel, Embeddings, RawBags
from persia.dense.uncompiled import leave_compiler_out

OptimizerKind = Literal["sgd", "adam", "adagrad"]


def make_optimizer(kind: OptimizerKind, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return torch's optimizer with torch's defaults, in the implementation that is fastest where the parameters are.

    Step it with `take_step`, or torch imports its compiler.

    Raises:
        ValueError: An unknown kind.
    """
    leave_compiler_out()
    parameters = list(parameters)
    on_cpu = all(parameter.is_cpu for parameter in parameters)
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, fused=True)
    if kind == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    if kind == "adagrad":
        return torch.optim.Adagrad(parameters, lr=learning_rate, fused=True if on_cpu else None)
    raise ValueError(f"optimizer: sgd, adam or adagrad; got {kind!r}")


def train_batch(model: nn.Module, dense: Tensor, embeddings: Embeddings, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run forward, mean binary cross-entropy of the logits, and backward; nothing is stepped.

    `model` is a DenseModel, or one wrapped in DistributedDataParallel, which then reduces during backward. Dense gradients
    are added to the parameters' `.grad`; ask `accept_gradients` before using them. Gradients of a loss that was scaled up
    (fp16) are scaled down again.

    Returns:
        The loss (a scalar without graph) and the gradient of every group's embeddings, [B,F,D] or [N,D] as they came in;
        zeros for all groups where one value of them is not finite, so that no server ever sees one.
    """
    scale = unwrapped(model).loss_scale.scale
    inputs: list[Tensor | RawBags] = []
    leaves: list[Tensor] = []
    for group in embeddings:
        leaf = (group.rows if isinstance(group, RawBags) else group).detach().requires_grad_(True)
        leaves.append(leaf)
        inputs.append(RawBags(rows=leaf, offsets=group.offsets) if isinstance(group, RawBags) else leaf)
    loss = functional.binary_cross_entropy_with_logits(model(dense, inputs), labels)
    torch.autograd.backward(loss if scale == 1.0 else loss * scale)
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.contiguous() for leaf in leaves]
    if scale != 1.0:
        torch._foreach_mul_([*gradients, *_dense_gradients(model)], 1.0 / scale)
    if not _all_finite(gradients):
        for gradient in gradients:
            gradient.zero_()
    return loss.detach(), gradients


def accept_gradients(model: nn.Module) -> bool:
    """Return whether all dense gradients are finite; if not, the batch must not be stepped. Ask once for every batch.

    Ask after gradients are reduced, so that all ranks get the same answer. The model's loss scale follows it.
    """
    finite = _all_finite(_dense_gradients(model))
    unwrapped(model).loss_scale.update(finite=finite)
    return finite


def unwrapped(model: nn.Module) -> DenseModel:
    """Return the model inside DistributedDataParallel, or itself.

    Raises:
        TypeError: It is not a DenseModel.
    """
    inner = getattr(model, "module", model)
    if not isinstance(inner, DenseModel):
        raise TypeError(f"a DenseModel, or one in DistributedDataParallel; got {type(inner).__name__}")
    return inner


def _dense_gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _all_finite(tensors: list[Tensor]) -> bool:
    """Return whether no value is infinite or NaN: their sum is neither. One pass; values near overflow count as infinite."""
    if not tensors:
        return True
    total = torch.stack([tensor.sum() for tensor in tensors]).sum()
    return bool(torch.isfinite(total))
