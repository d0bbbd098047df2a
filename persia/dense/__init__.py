"""Dense networks: the paper's multi-layer perceptron and DLRM, their training step, their state as plain arrays."""

from __future__ import annotations

from persia.dense.memory import keep_freed_memory
from persia.dense.model import DenseModel, Embeddings, LossScale, RawBags, build
from persia.dense.quality import auc, logloss
from persia.dense.spec import DenseSpec
from persia.dense.state import flat_gradients, flat_parameters, load_state_arrays, set_flat_parameters, state_arrays
from persia.dense.training import OptimizerKind, accept_gradients, make_optimizer, train_batch
from persia.dense.uncompiled import take_step

__all__ = [
    "DenseModel",
    "DenseSpec",
    "Embeddings",
    "LossScale",
    "OptimizerKind",
    "RawBags",
    "accept_gradients",
    "auc",
    "build",
    "flat_gradients",
    "flat_parameters",
    "keep_freed_memory",
    "load_state_arrays",
    "logloss",
    "make_optimizer",
    "set_flat_parameters",
    "state_arrays",
    "take_step",
    "train_batch",
]
