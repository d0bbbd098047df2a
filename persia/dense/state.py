"""The dense parameters and their optimizer's state as plain arrays: for checkpoints, and as one vector for servers.

Shapes: P parameters of the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from persia.dense.training import unwrapped

Array = npt.NDArray[Any]

_PARAMETER = "parameter/"
_STATE = "optimizer/"


def state_arrays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """Return every parameter as `parameter/NAME` and its optimizer state as `optimizer/NAME/KEY`, in parameter order.

    The arrays may share memory with the model: copy them if it goes on training.
    """
    arrays = {_PARAMETER + name: _array(parameter) for name, parameter in _named(model)}
    for name, parameter in _named(model):
        for key, value in optimizer.state.get(parameter, {}).items():
            arrays[f"{_STATE}{name}/{key}"] = _array(value)
    return arrays


def load_state_arrays(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, Array]) -> None:
    """Take what `state_arrays` returned, of a model and optimizer made alike; nothing is changed if it does not fit.

    An optimizer that had not stepped yet left no state (SGD never does): then no state is loaded.

    Raises:
        ValueError: Names are missing or foreign, or an array has another shape or type; the message lists them.
    """
    expected = _expected(model, optimizer, arrays)
    wrong = [f"missing {name}" for name in expected if name not in arrays]
    wrong += [f"foreign {name}" for name in arrays if name not in expected]
    for name, wanted in expected.items():
        found = arrays.get(name)
        if found is not None and (found.shape != tuple(wanted.shape) or found.dtype != _array(wanted).dtype):
            wrong.append(f"{name} is {found.dtype}{list(found.shape)}, expected {_array(wanted).dtype}{list(wanted.shape)}")
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"the dense state is of another model or optimizer: {'; '.join(wrong[:5])}{more}")
    with torch.no_grad():
        for name, parameter in _named(model):
            parameter.copy_(_tensor(arrays[_PARAMETER + name]))
            keys = [key for key in expected if key.startswith(f"{_STATE}{name}/")]
            if keys:
                state = {key.rpartition("/")[2]: _tensor(arrays[key]).to(expected[key].device) for key in keys}
                optimizer.state[parameter] = state


def flat_parameters(model: nn.Module) -> Tensor:
    """Return all parameters as one fp32 vector [P], a copy."""
    return torch.cat([parameter.detach().reshape(-1) for _, parameter in _named(model)])


def set_flat_parameters(model: nn.Module, vector: Tensor) -> None:
    """Replace all parameters by those of a vector [P].

    Raises:
        ValueError: The vector has another size.
    """
    parameters = [parameter for _, parameter in _named(model)]
    sizes = [parameter.numel() for parameter in parameters]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"a vector of {list(vector.shape)} values for {sum(sizes)} dense parameters")
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(vector, sizes), strict=True):
            parameter.copy_(part.view_as(parameter))


def flat_gradients(model: nn.Module) -> Tensor:
    """Return all gradients as one fp32 vector [P], a copy; zeros where a parameter has none."""
    parameters = [parameter for _, parameter in _named(model)]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])


def _expected(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return what `arrays` must hold: a tensor of the right shape and type for each name."""
    expected: dict[str, Tensor] = {_PARAMETER + name: parameter for name, parameter in _named(model)}
    if any(name.startswith(_STATE) for name in arrays):
        for name, parameter in _named(model):
            for key in _state_keys(optimizer):
                expected[f"{_STATE}{name}/{key}"] = torch.zeros((), dtype=torch.float32) if key == "step" else parameter
    return expected


def _state_keys(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    if isinstance(optimizer, torch.optim.Adam):
        return ("step", "exp_avg", "exp_avg_sq")
    if isinstance(optimizer, torch.optim.Adagrad):
        return ("step", "sum")
    return ()


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return unwrapped(model).named_parameters()


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array))
