"""Profiles: calibrated costs, each with its unit, its source and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import Field, PrivateAttr

from persia.scenario.base import Evidence, Many, Name, Part, Real, Text
from persia.scenario.errors import Position, did_you_mean, error_at, shown
from persia.scenario.explain import validate
from persia.scenario.packaged import list_profiles, looks_like_path, profile_path
from persia.scenario.source import read_tree


class Constant(Part):
    """One calibrated cost."""

    value: Real = Field(description="Its value, in `unit`.", examples=[1.5e-6])
    unit: Text = Field(description="Its unit, in words.", examples=["s per row"])
    source: Text = Field(min_length=1, description="Where it was measured or read, and how it was derived.", examples=["measured"])
    evidence: Evidence = Field(description="S read, D derived, M from memory, I inferred, F fitted.", examples=["S"])
    low: Real | None = Field(default=None, description="Lower end of its 90 % interval, or null where none is known.", examples=[1.2e-6])
    high: Real | None = Field(default=None, description="Upper end of its 90 % interval.", examples=[1.8e-6])
    fitted_to: Many[Name] = Field(default=(), max_length=100, description="Published rows it was fitted to.", examples=[[]])


class Fingerprint(Part):
    """The machine and the versions that a profile was measured with."""

    cpu: Text = Field(description="Name of the processor.", examples=["AMD EPYC 7B13"])
    cores: int = Field(description="Hardware threads that this system may use.", examples=[2])
    ram_gib: Real = Field(description="Memory in GiB.", examples=[24])
    kernel: Text = Field(description="Kernel release.", examples=["6.1.0"])
    python: Text = Field(description="Version of Python.", examples=["3.11.7"])
    packages: Mapping[str, str] = Field(max_length=100, description="Versions of what the runtime is made of.", examples=[{}])
    measured_at: Text = Field(description="When, in UTC.", examples=["2026-01-31T12:00:00+00:00"])


class Range(Part):
    """The values of one quantity that a calibration has covered."""

    low: Real = Field(description="The least.", examples=[128])
    high: Real = Field(description="The largest.", examples=[4096])


class Profile(Part):
    """A set of constants; `profile["server.lookup_s_per_row"]` is a value."""

    name: Name = Field(description="Name of the profile.", examples=["persia-original"])
    description: Text = Field(default="", description="What was measured, and where.", examples=["one box, two cores"])
    constants: Mapping[str, Constant] = Field(min_length=1, max_length=1000, description="The constants, by dotted name.", examples=[{}])
    machine: Fingerprint | None = Field(
        default=None, description="What a calibration was run on; null for constants of literature.", examples=[None]
    )
    domain: Mapping[str, Range] = Field(
        default_factory=dict, max_length=100, description="Quantities of a batch that the calibration has covered.", examples=[{}]
    )
    _file: str = PrivateAttr(default="(profile)")

    def __getitem__(self, name: str) -> float:
        """Return a constant's value; raises ScenarioError with a did-you-mean."""
        constant = self.constants.get(name)
        if constant is None:
            message = f"the profile {self.name!r} has no constant {shown(name)}"
            raise error_at(Position(file=self._file, line=1, column=1), message, did_you_mean(name, self.constants))
        return constant.value

    def __contains__(self, name: object) -> bool:
        """Return whether the profile has the constant."""
        return name in self.constants

    def cpu_factor(self, family: str) -> float:
        """Return how many times longer CPU work takes on a machine family (`c2`) than on the reference core."""
        key = f"cpu.{family}"
        return self[key if key in self else "cpu.default"]


def load_profile(name: str) -> Profile:
    """Return a packaged profile by its name, or one from a YAML file by its path.

    Raises:
        ScenarioError: no such profile, or anything wrong with the file.
    """
    if looks_like_path(name):
        return _of_file(Path(name), _version(Path(name)))
    if name not in list_profiles():
        at = Position(file=f"profile {shown(name)}")
        raise error_at(at, "no packaged profile of this name", did_you_mean(name, list_profiles()))
    return _packaged(name)


@lru_cache(maxsize=8)
def _packaged(name: str) -> Profile:
    """Return a packaged profile; it is frozen, so that one object serves all."""
    return read_profile(profile_path(name))


@lru_cache(maxsize=8)
def _of_file(path: Path, version: tuple[int, ...]) -> Profile:
    """Return the profile in a file as long as it is of this version: simulations in a row read it once."""
    return read_profile(path)


def _version(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written anew; nothing for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_profile(path: Path) -> Profile:
    """Return the profile in a file; raises ScenarioError."""
    profile = validate(read_tree(path), Profile)
    profile._file = str(path)
    return profile
