"""What every part of a scenario is made of: the strict pydantic base class and the quantities with units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from persia.scenario.errors import shown
from persia.scenario.units import COUNT, RATE, REAL, SIZE, TIME, Dimension, UnitError

T = TypeVar("T")

# A list in YAML, a tuple here; pydantic's strict mode would take tuples only.
Many = Annotated[tuple[T, ...], Field(strict=False)]

TierName = Literal["loader", "embedding_worker", "parameter_server", "nn_worker"]
TIER_NAMES: tuple[str, ...] = ("loader", "embedding_worker", "parameter_server", "nn_worker")
# S read in the named source, D derived from it by the formula given, M from memory and unverified, I inferred, F fitted.
Evidence = Literal["S", "D", "M", "I", "F"]


class Part(BaseModel):
    """A part of a scenario: frozen, no unknown fields, no silent conversions (a bool is no number, a number no string)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Annotation of a number: reads units and checks bounds, in words of its own; describes itself to JSON Schema."""

    dimension: Dimension
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def expected(self) -> str:
        """What a value must be, for messages."""
        bounds = [("at least", self.low), ("more than", self.above), ("at most", self.high), ("less than", self.below)]
        limits = " and ".join(f"{words} {bound:,}" for words, bound in bounds if bound is not None)
        return self.dimension.expected + (f", {limits}" if limits else "")

    def validate(self, value: Any) -> int | float:
        """Return the value in the base unit; raises PydanticCustomError, which pydantic collects."""
        try:
            number = self.dimension.read(value)
        except UnitError as error:
            raise self._refusal(str(error), error.remedy) from error
        too_low = (self.low is not None and number < self.low) or (self.above is not None and number <= self.above)
        too_high = (self.high is not None and number > self.high) or (self.below is not None and number >= self.below)
        if too_low or too_high:
            raise self._refusal(f"{shown(value)} is too {'small' if too_low else 'large'}", "")
        return number

    def _refusal(self, wrong: str, remedy: str) -> PydanticCustomError:
        """Return the error that `explain` turns into a ScenarioError."""
        context: dict[str, Any] = {"wrong": wrong, "expected": self.expected, "remedy": remedy}
        return PydanticCustomError("quantity", "{wrong}; expected {expected}", context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by `validate` alone."""
        number = core_schema.int_schema() if self.dimension.whole else core_schema.float_schema()
        validate: Callable[[Any], int | float] = self.validate
        return core_schema.no_info_before_validator_function(validate, number)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return `a number within the bounds, or a string with a unit`."""
        keywords = {"minimum": self.low, "maximum": self.high, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        number: dict[str, Any] = {"type": "integer" if self.dimension.whole and not self.dimension.rounded else "number"}
        number |= {keyword: bound for keyword, bound in keywords.items() if bound is not None}
        return {"anyOf": [number, {"type": "string", "pattern": self.dimension.pattern}]}


Count = Annotated[int, Quantity(dimension=COUNT, low=0)]
PositiveCount = Annotated[int, Quantity(dimension=COUNT, low=1)]
# Machines, processes, features: each becomes an object somewhere, so that a slip of the pen must not ask for 30e9 of them.
Multiplicity = Annotated[int, Quantity(dimension=COUNT, low=1, high=100_000)]
Window = Annotated[int, Quantity(dimension=COUNT, low=1, high=1_000_000)]
Bytes = Annotated[int, Quantity(dimension=SIZE, low=0)]
PositiveBytes = Annotated[int, Quantity(dimension=SIZE, low=1)]
PositiveRate = Annotated[float, Quantity(dimension=RATE, above=0)]
Seconds = Annotated[float, Quantity(dimension=TIME, low=0)]
PositiveSeconds = Annotated[float, Quantity(dimension=TIME, above=0)]
Real = Annotated[float, Quantity(dimension=REAL)]
NonNegativeReal = Annotated[float, Quantity(dimension=REAL, low=0)]
PositiveReal = Annotated[float, Quantity(dimension=REAL, above=0)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(max_length=20_000)]
