"""Style as a test: who may import whom, what the core must not touch, how long a function may be.

Each rule is a function from one parsed file to its complaints; each is also shown a file that breaks it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("persia", "reports", "scenarios", "simulator")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400

# Part of the program -> the parts it may import.  The command line is cli.py (verbs and options) and commands/ (what a
# verb does); it reads scenarios and writes traces itself, and everything else through the worlds.
ARROWS: dict[str, frozenset[str]] = {
    "persia": frozenset(),
    "persia.__main__": frozenset({"persia.cli"}),
    "persia.cli": frozenset({"persia", "persia.commands"}),
    "persia.commands": frozenset(
        {"persia", "persia.readings", "persia.scenario", "persia.trace", "persia.replaying", "persia.runtime", "reports", "simulator"}
    )
    | {"simulator.calibration"},
    "persia.schedule": frozenset(),
    "persia.scenario": frozenset({"persia.schedule", "scenarios"}),
    "persia.trace": frozenset(),
    "persia.readings": frozenset(),
    "persia.replaying": frozenset({"persia.schedule"}),
    "persia.embedding": frozenset({"persia.embedding.placement"}),
    "persia.embedding.placement": frozenset(),
    "persia.dense": frozenset(),
    "persia.data": frozenset(),
    "persia.runtime": frozenset(
        {
            "persia",
            "persia.readings",
            "persia.schedule",
            "persia.scenario",
            "persia.trace",
            "persia.embedding",
            "persia.embedding.placement",
            "persia.dense",
            "persia.data",
        }
    ),
    "simulator": frozenset({"persia.readings", "persia.schedule", "persia.scenario", "persia.trace", "persia.embedding.placement"}),
    "simulator.calibration": frozenset({"persia.readings", "persia.scenario", "simulator"}),
    "reports": frozenset({"simulator", "persia.trace"}),
    "scenarios": frozenset(),
}
# Part -> packages from outside that it may import.  torch, numba and zmq belong to the real system alone.
OUTSIDE: dict[str, frozenset[str]] = {
    "persia.cli": frozenset({"typer"}),
    "persia.commands": frozenset({"typer", "rich", "yaml"}),
    "persia.scenario": frozenset({"pydantic", "pydantic_core", "yaml"}),
    "persia.embedding": frozenset({"numpy", "numba"}),
    "persia.embedding.placement": frozenset({"numpy"}),
    "persia.dense": frozenset({"numpy", "torch"}),
    "persia.data": frozenset({"numpy"}),
    "persia.runtime": frozenset({"lz4", "numpy", "torch", "zmq"}),
    "simulator": frozenset({"networkx", "numpy", "simpy"}),
    "simulator.calibration": frozenset({"numpy", "scipy", "yaml"}),
    "reports": frozenset({"jinja2", "markupsafe", "matplotlib", "networkx", "numpy", "rich"}),
}
# Import name -> distribution, where they differ; pydantic_core is half of pydantic and versioned with it.
DISTRIBUTIONS = {"yaml": "pyyaml", "zmq": "pyzmq", "pydantic_core": "pydantic"}
# The core's whole vocabulary: no clock, no randomness, no input or output can be reached from these.
CORE_MODULES = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "json",
        "math",
        "operator",
        "sys",
        "typing",
    }
)
# All that the core may take from `sys`, which also holds the standard streams.
CORE_SYS_NAMES = frozenset({"byteorder"})
# hash() and id() differ from run to run, so a decision must not rest on them.
CORE_BANNED_CALLS = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "hash", "id"})
# Nowhere: a global random state; formats that run code when read.
BANNED_MODULES = frozenset({"random", "pickle", "marshal", "shelve", "dill", "cloudpickle"})
# Where a function may import, and why.
LATE_IMPORTS: dict[str, tuple[str, ...]] = {
    "persia/cli.py": ("",),  # a verb imports its own world only, so that `persia check` starts fast
    # torch takes seconds to import: only a rank waits for it, and a coordinator of several
    "persia/runtime/node.py": ("persia.runtime.make_", "persia.runtime.rendezvous"),
    "persia/runtime/attempt.py": ("persia.runtime.rendezvous",),
    "persia/runtime/coordinator.py": ("persia.runtime.rendezvous",),
    "persia/commands/train.py": ("persia.runtime.rendezvous",),
    "simulator/__init__.py": ("simulator.run",),  # a check waits for no engine
    "simulator/network/topology.py": ("networkx",),  # nor for a graph library: the map is drawn for a report only
    "reports/": ("matplotlib",),  # takes longer to import than a small report takes to write
}
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:home|root|work|workspace|Users|opt|mnt|media)/\w|\b[A-Z]:\\+Users\\", re.ASCII)
SKIPPED_FOLDERS = frozenset(
    {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "runs", "build", "dist", "shared"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python file: its path from the root with forward slashes, its text and its tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """The dotted name under which the file is imported."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(path: str, text: str) -> Source:
    return Source(path=path, text=text, tree=ast.parse(text))


def python_files(*folders: str) -> list[Source]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


PRODUCT = python_files(*PACKAGES)
TESTS = python_files("tests")


def part_of(module: str) -> str:
    """The most special part of ARROWS that a module belongs to; `persia.new_thing` belongs to none: add it there."""
    names = module.split(".")
    for length in range(len(names), 0, -1):
        name = ".".join(names[:length])
        if name in ARROWS and (name != "persia" or length == len(names)):
            return name
    return ""


def imports(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported module with its statement; `from persia import trace` counts as `persia.trace`."""
    package = source.module if source.path.endswith("__init__.py") else source.module.rpartition(".")[0]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).is_dir() or (ROOT / (inner.replace(".", "/") + ".py")).is_file()
                yield node, inner if is_module else module


def arrows(source: Source) -> list[str]:
    part = part_of(source.module)
    if not part:
        return [f"{source.path}: belongs to no part of ARROWS"]
    complaints = []
    for node, module in imports(source):
        top = module.split(".")[0]
        if top in PACKAGES:
            target = part_of(module)
            if target not in {part} | ARROWS[part]:
                complaints.append(f"{source.path}:{node.lineno}: {part} must not import {module}")
        elif top not in sys.stdlib_module_names and top not in OUTSIDE.get(part, ()):
            complaints.append(f"{source.path}:{node.lineno}: {part} must not import {top}")
    return complaints


def pure_core(source: Source) -> list[str]:
    if part_of(source.module) != "persia.schedule":
        return []
    complaints = [
        f"{source.path}:{node.lineno}: the core must not import {module}"
        for node, module in imports(source)
        if module.split(".")[0] not in CORE_MODULES | {"persia"}
    ]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_BANNED_CALLS:
            complaints.append(f"{source.path}:{node.lineno}: the core must not call {node.func.id}()")
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
            and node.attr not in CORE_SYS_NAMES
        ):
            complaints.append(f"{source.path}:{node.lineno}: the core must not use sys.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            complaints.append(f"{source.path}:{node.lineno}: the core must name what it takes as sys.NAME")
    return complaints


def banned_modules(source: Source) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: {module} is not used in this project"
        for node, module in imports(source)
        if module.split(".")[0] in BANNED_MODULES
    ]


def late_imports(source: Source) -> list[str]:
    """A package's `__getattr__` may import what is asked for: that is how an export loads when it is first used."""
    allowed = [name for prefix, names in LATE_IMPORTS.items() if source.path.startswith(prefix) for name in names]
    inside = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__getattr__"
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    return [
        f"{source.path}:{node.lineno}: import of {module} inside a function"
        for node, module in imports(source)
        if id(node) in inside and not any(module.startswith(name) for name in allowed)
    ]


def lengths(source: Source) -> list[str]:
    lines = source.text.count("\n")
    complaints = [f"{source.path}: {lines} lines; {FILE_LINES_MAX} is the wall"] if lines > FILE_LINES_MAX else []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                complaints.append(f"{source.path}:{node.lineno}: {node.name} has {length} lines; {FUNCTION_LINES_MAX} is the wall")
    return complaints


def docstrings(source: Source) -> list[str]:
    complaints = [] if ast.get_docstring(source.tree) else [f"{source.path}: no docstring"]

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
                continue
            if not ast.get_docstring(child) and not is_override(child):
                complaints.append(f"{source.path}:{child.lineno}: {prefix}{child.name} has no docstring")
            if isinstance(child, ast.ClassDef):
                look(child, f"{prefix}{child.name}.")

    look(source.tree, "")
    return complaints


def is_override(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id in ("override", "overload") for decorator in node.decorator_list)


Rule = Callable[[Source], list[str]]


@pytest.mark.parametrize("rule", [arrows, pure_core, banned_modules, late_imports, lengths, docstrings])
def test_product_is_tidy(rule: Rule) -> None:
    assert PRODUCT, "no product files found"
    assert [complaint for source in PRODUCT for complaint in rule(source)] == []


def test_tests_are_short() -> None:
    assert [complaint for source in TESTS for complaint in lengths(source)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (arrows, "simulator/x.py", "from persia.runtime import link"),
        (arrows, "simulator/x.py", "import torch"),
        (arrows, "simulator/x.py", "from persia import cli"),
        (arrows, "simulator/network/x.py", "from ...persia import runtime"),
        (arrows, "persia/schedule/x.py", "import simulator"),
        (arrows, "persia/schedule/x.py", "from ..scenario import Scenario"),
        (arrows, "persia/new_part/x.py", "import math"),
        (arrows, "reports/x.py", "from persia.scenario import Scenario"),
        (pure_core, "persia/schedule/x.py", "import time"),
        (pure_core, "persia/schedule/x.py", "def f():\n    from os import urandom"),
        (pure_core, "persia/schedule/x.py", "import numpy as np"),
        (pure_core, "persia/schedule/x.py", "print(1)"),
        (pure_core, "persia/schedule/x.py", "import sys\nsys.stdout.write('x')"),
        (pure_core, "persia/schedule/x.py", "from sys import stdout"),
        (banned_modules, "simulator/x.py", "import random"),
        (banned_modules, "persia/runtime/x.py", "from pickle import loads"),
        (late_imports, "simulator/x.py", "def f():\n    import json"),
        (late_imports, "reports/x.py", "def f():\n    import networkx"),
        (lengths, "simulator/x.py", "def f():\n" + "    x = 1\n" * 70),
        (lengths, "simulator/x.py", "x = 1\n" * 401),
        (docstrings, "simulator/x.py", "x = 1"),
        (docstrings, "simulator/x.py", '"""A module."""\ndef f(): ...'),
        (docstrings, "simulator/x.py", '"""A module."""\nclass C:\n    """A class."""\n    def f(self): ...'),
    ],
)
def test_rule_finds_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert rule(parse(path, text))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (arrows, "simulator/x.py", "import simpy\nfrom persia.schedule.messages import Push\nfrom . import costs"),
        (arrows, "simulator/x.py", "from persia.embedding.placement import server_of"),
        (pure_core, "persia/schedule/x.py", "from collections import deque\nfrom .messages import Push"),
        (late_imports, "persia/cli.py", "def f():\n    import simulator"),
        (late_imports, "reports/x.py", "def f():\n    from matplotlib import pyplot"),
        (docstrings, "simulator/x.py", '"""A module."""\ndef _f(): ...'),
    ],
)
def test_rule_allows_what_keeps_it(rule: Rule, path: str, text: str) -> None:
    assert rule(parse(path, text)) == []


def test_every_package_from_outside_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["runtime"]]
    declared = {re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    used = {DISTRIBUTIONS.get(name, name) for names in OUTSIDE.values() for name in names}
    assert used == declared


def test_constraints_pin_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for requirements in project["optional-dependencies"].values() for requirement in requirements]
    wanted = {re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower() for requirement in [*project["dependencies"], *extras]}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    assert wanted <= {pin.partition("==")[0] for pin in pins}
    assert "torch==2.13.0" in pins


def text_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            yield path


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in text_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "names_one"), [("see /home/ann/x", True), ("'/opt/thing'", True), ("a/home/page", False), ("and/or", False)]
)
def test_machine_path_pattern(line: str, names_one: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is names_one


def test_simulation_never_asks_for_what_a_real_run_needs() -> None:
    program = """
import importlib.abc, sys

class Watch(importlib.abc.MetaPathFinder):
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numba", "zmq", "lz4"):
            self.asked.append(name)

sys.meta_path.insert(0, Watch())
import persia.cli, reports, simulator
import simulator.published
from simulator import simulate
print(*Watch.asked)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
