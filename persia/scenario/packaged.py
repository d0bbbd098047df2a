"""Finding the data files that are installed with the program (the `scenarios` package)."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path


@lru_cache(maxsize=1)
def root() -> Path:
    """Return the folder of the `scenarios` package."""
    return Path(str(resources.files("scenarios")))


def _names(folder: str) -> tuple[str, ...]:
    """Return the names (files without `.yaml`) in one folder, sorted."""
    return tuple(sorted(path.name.removesuffix(".yaml") for path in (root() / folder).glob("*.yaml")))


@lru_cache(maxsize=1)
def list_scenarios() -> tuple[str, ...]:
    """Return the names of the packaged scenarios, sorted."""
    return _names(".")


@lru_cache(maxsize=1)
def list_profiles() -> tuple[str, ...]:
    """Return the names of the packaged profiles, sorted."""
    return _names("profiles")


def scenario_path(name: str) -> Path:
    """Return the file of a packaged scenario; it need not exist."""
    return _near(root() / f"{name}.yaml")


def profile_path(name: str) -> Path:
    """Return the file of a packaged profile; it need not exist."""
    return _near(root() / "profiles" / f"{name}.yaml")


def catalog_path(file: str) -> Path:
    """Return a file of the catalogue."""
    return _near(root() / "catalog" / file)


def looks_like_path(name: str) -> bool:
    """Return whether a name is meant as a file, rather than as the name of something packaged."""
    return name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name


def _near(path: Path) -> Path:
    """Return the path relative to the working folder where it lies in it: messages are shorter, and editors open them."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
