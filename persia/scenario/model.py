"""What is trained: embedding features, the dense network, and the workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from persia.scenario.base import (
    Bytes,
    Count,
    Many,
    Multiplicity,
    Name,
    Part,
    PositiveCount,
    PositiveReal,
    Quantity,
    Text,
    Window,
)
from persia.scenario.units import COUNT, REAL

MOST_FEATURES = 100_000


class Feature(Part):
    """One categorical feature, or `count` identical ones, each with an embedding table of its own."""

    name: Name = Field(description="Name of the feature or group, unique in the scenario.", examples=["categorical"])
    count: Multiplicity = Field(default=1, description="Identical features in this group, each with its own rows.", examples=[26])
    rows: PositiveCount = Field(
        description="Rows of each feature's table: distinct IDs that get an embedding.", examples=["30e9", 1_000_000]
    )
    resident_rows: PositiveCount | None = Field(
        default=None,
        description="Rows of each table that the servers keep, the least recently used being evicted; null keeps all.",
        examples=["1e9"],
    )
    dim: Annotated[int, Quantity(dimension=COUNT, low=1, high=65_536)] = Field(description="Parameters in a row.", examples=[16])
    ids_per_sample: Annotated[float, Quantity(dimension=REAL, above=0, high=1e6)] = Field(
        default=1.0, description="Mean number of IDs of each feature in a sample.", examples=[1.0]
    )
    zipf: Annotated[float, Quantity(dimension=REAL, low=0, high=10)] = Field(
        default=1.05, description="Exponent of the popularity of IDs; 0 makes all equally likely.", examples=[1.05]
    )
    pooling: Literal["sum", "mean", "sqrtn", "raw"] = Field(
        default="sum", description="How a sample's rows of one feature become one vector; raw sends every row.", examples=["sum"]
    )
    bytes_per_parameter: Literal[2, 4] = Field(default=4, description="Bytes in which a server stores a parameter.", examples=[4])
    optimizer: Literal["sgd", "adagrad", "rowwise-adagrad", "adam"] = Field(
        default="adagrad", description="Sparse optimizer; it decides the state that a server keeps for each row.", examples=["adagrad"]
    )

    @property
    def kept_rows(self) -> int:
        """Return the rows of each table that the servers keep in memory."""
        return self.rows if self.resident_rows is None else min(self.rows, self.resident_rows)

    @property
    def parameters(self) -> int:
        """Return the parameters of the whole group."""
        return self.count * self.rows * self.dim


class Dense(Part):
    """The dense network, of which every rank holds a copy."""

    dense_features: Count = Field(default=13, description="Numeric inputs of a sample.", examples=[13])
    layers: Many[Annotated[int, Quantity(dimension=COUNT, low=1, high=1_000_000)]] = Field(
        default=(4096, 2048, 1024, 512, 256),
        min_length=1,
        max_length=1000,
        description="Widths of the hidden layers; the output layer is not among them.",
        examples=[[1024, 512]],
    )
    bottom_layers: Many[Annotated[int, Quantity(dimension=COUNT, low=1, high=1_000_000)]] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="dlrm only: widths of the hidden layers below the dot products; null: one, as wide as the first of `layers`.",
        examples=[[512, 256, 64]],
    )
    projection_dim: Annotated[int, Quantity(dimension=COUNT, low=1, high=65_536)] | None = Field(
        default=None,
        description="Width to which one matrix per dim, shared by its features, projects every embedding first.",
        examples=[16],
    )
    architecture: Literal["mlp", "dlrm"] = Field(
        default="mlp", description="mlp concatenates all inputs; dlrm adds the dot products of all pairs of embeddings.", examples=["mlp"]
    )
    optimizer: Literal["sgd", "adam", "adagrad"] = Field(
        default="adam", description="Optimizer of the dense parameters.", examples=["adam"]
    )
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = Field(
        default="fp32", description="Arithmetic of the matrix products.", examples=["fp32"]
    )
    learning_rate: PositiveReal = Field(default=1e-3, description="Learning rate of the dense parameters.", examples=[0.001])


class RecommenderModel(Part):
    """The model: embedding tables on the parameter servers, a dense network on the NN workers."""

    features: Many[Feature] = Field(
        min_length=1,
        max_length=10_000,
        description="Categorical features with their tables.",
        examples=[[{"name": "user", "rows": "1e6", "dim": 16}]],
    )
    dense: Dense = Field(default_factory=Dense, description="The dense network.")
    embedding_learning_rate: PositiveReal = Field(default=1e-2, description="Learning rate of the embeddings.", examples=[0.01])
    resident_bytes_per_row_overhead: Bytes | None = Field(
        default=None,
        description="Bytes a row needs beside parameters and optimizer state (key, links); null takes the profile's.",
        examples=[80],
    )

    @property
    def sparse_parameters(self) -> int:
        """Return the parameters of all embedding tables."""
        return sum(feature.parameters for feature in self.features)

    @property
    def feature_count(self) -> int:
        """Return the number of features, every one of a group counted."""
        return sum(feature.count for feature in self.features)

    @model_validator(mode="after")
    def _features_can_be_listed(self) -> Self:
        """Refuse so many features that `expanded` would not end."""
        if self.feature_count > MOST_FEATURES:
            context = {"wrong": f"{self.feature_count:,} features in all", "expected": f"at most {MOST_FEATURES:,}", "remedy": ""}
            raise PydanticCustomError("quantity", "{wrong}; expected {expected}", context)
        return self


def expanded(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Return one Feature of count 1 for every feature; those of a group are called `name.0`, `name.1`, ..."""
    return tuple(
        feature if feature.count == 1 else feature.model_copy(update={"name": f"{feature.name}.{index}", "count": 1})
        for feature in features
        for index in range(feature.count)
    )


class Data(Part):
    """Where the samples come from."""

    kind: Literal["synthetic", "criteo-tsv", "adult"] = Field(
        default="synthetic", description="synthetic draws IDs from the features' popularity; the others read files.", examples=["synthetic"]
    )
    path: Text | None = Field(default=None, description="File or folder of a data set; null for synthetic.", examples=["data/adult"])
    held_out_samples: Count = Field(
        default=20_000, description="At most so many samples are never trained, and evaluated: AUC, log-loss.", examples=[20_000]
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="error", description="Whether a row of a file that is not as it should be ends the run or is left out.", examples=["skip"]
    )
    distinct_batches: Window | None = Field(
        default=None,
        description="Draw so many synthetic batches and repeat them, so that drawing costs nothing; null draws every batch.",
        examples=[16],
    )


class Workload(Part):
    """How much is trained at once, and in all."""

    batch_size: Annotated[int, Quantity(dimension=COUNT, low=1, high=100_000_000)] = Field(
        description="Samples that one rank trains at once.", examples=[512]
    )
    samples: PositiveCount = Field(description="Samples to train in all.", examples=["44 million"])
    data: Data = Field(default_factory=Data, description="Where the samples come from.")
    evaluate_every_steps: Count = Field(
        default=0, description="Steps between evaluations on the held-out samples; 0 evaluates at the end only.", examples=[1000]
    )


class Assumption(Part):
    """One value of the scenario that no published source states, with the argument for it."""

    path: Name = Field(
        description="Path of the value, such as model.features[0].dim, or catalog.machines.NAME.", examples=["workload.batch_size"]
    )
    why: Text = Field(min_length=1, description="Why this value.", examples=["fits the published plots"])
    source: Text = Field(min_length=1, description="What the argument rests on.", examples=["KDD 2022 paper, figure 7"])
    evidence: Literal["S", "D", "M", "I", "F"] = Field(
        description="S read in the source, D derived from it, M from memory and unverified, I inferred, F fitted.", examples=["I"]
    )
