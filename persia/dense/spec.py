"""Shape of the dense network: which matrices it has, in forward order.  The simulator counts the same parameters.

Shapes: B samples, F features of a group, D its dim, W width of an embedding inside the network (the projection's, or D).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

Architecture = Literal["mlp", "dlrm"]
Precision = Literal["fp32", "tf32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """What a dense network is made of; two processes that build the same spec get the same weights.

    `groups` lists (features, dim, pooling) of each feature group, in the scenario's order. `layers` are the widths of the
    hidden layers; in a dlrm those above the dot interaction. `bottom_layers` are a dlrm's hidden widths below it, where
    null means the first of `layers`, which is what the simulator counts.
    """

    dense_features: int
    groups: tuple[tuple[int, int, str], ...]
    layers: tuple[int, ...]
    projection_dim: int | None = None
    architecture: Architecture = "mlp"
    precision: Precision = "fp32"
    seed: int = 0
    bottom_layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the field."""
        if not self.groups or any(features < 1 or dim < 1 for features, dim, _ in self.groups):
            raise ValueError(f"groups: at least one, each of at least one feature and dim 1; got {self.groups}")
        if not self.layers or min(self.layers) < 1 or min(self.bottom_layers or (1,)) < 1:
            raise ValueError(f"layers: at least one, each at least 1 wide; got {self.layers}, bottom_layers {self.bottom_layers}")
        if self.dense_features < 0:
            raise ValueError(f"dense_features: at least 0; got {self.dense_features}")
        if self.projection_dim is not None and self.projection_dim < 1:
            raise ValueError(f"projection_dim: at least 1 or null; got {self.projection_dim}")
        if self.architecture not in ("mlp", "dlrm"):
            raise ValueError(f"architecture: mlp or dlrm; got {self.architecture!r}")
        if self.precision not in ("fp32", "tf32", "fp16", "bf16"):
            raise ValueError(f"precision: fp32, tf32, fp16 or bf16; got {self.precision!r}")
        if self.architecture == "dlrm" and self.projection_dim is None and len(set(self.dims)) > 1:
            raise ValueError(f"groups: dlrm takes dot products of embeddings of one dim; got {sorted(set(self.dims))}, no projection_dim")

    @property
    def dims(self) -> tuple[int, ...]:
        """Return the dim of each group."""
        return tuple(dim for _, dim, _ in self.groups)

    @property
    def features(self) -> int:
        """Return the features of all groups together."""
        return sum(features for features, _, _ in self.groups)

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """Return (dim, width) of each projection matrix: one per distinct dim, shared by all features of that dim."""
        width = self.projection_dim
        return tuple((dim, width) for dim in dict.fromkeys(self.dims)) if width else ()

    @property
    def bottom_widths(self) -> tuple[int, ...]:
        """Return the widths from dense features to the embedding width of a dlrm's bottom network; empty for an mlp."""
        if self.architecture == "mlp":
            return ()
        hidden = self.bottom_layers or self.layers[:1]
        return (self.dense_features, *hidden, self.projection_dim or self.dims[0])

    @property
    def top_widths(self) -> tuple[int, ...]:
        """Return the widths from the (top) network's inputs to its one output."""
        if self.architecture == "mlp":
            inputs = self.dense_features + sum(features * (self.projection_dim or dim) for features, dim, _ in self.groups)
        else:
            vectors = self.features + 1
            inputs = self.bottom_widths[-1] + vectors * (vectors - 1) // 2
        return (inputs, *self.layers, 1)

    def layer_parameters(self) -> tuple[int, ...]:
        """Return the parameters of each layer in forward order, weights and biases; projections have no bias."""
        projections = (dim * width for dim, width in self.projections)
        pairs = (*itertools.pairwise(self.bottom_widths), *itertools.pairwise(self.top_widths))
        return (*projections, *(inputs * outputs + outputs for inputs, outputs in pairs))
