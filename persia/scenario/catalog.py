"""The catalogue: machine types with prices, accelerators, links, storage; raw data with source and evidence."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from persia.scenario.errors import Position, did_you_mean, error_at, shown
from persia.scenario.packaged import catalog_path
from persia.scenario.source import read_text, read_tree
from persia.scenario.tree import plain

if TYPE_CHECKING:
    from persia.scenario.cluster import InlineMachine
    from persia.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineType:
    """A machine type; prices are list prices in US dollars, None where none is known.

    `evidence` tags size and prices, `nic_evidence` the network rates: S read in the source, M from memory and unverified.
    `nic_gbps` is Gbit/s in each direction, "up to" in the vendor's words; `nic_gbps_tier1` costs extra.
    """

    name: str
    vcpus: int
    ram_gib: float
    accelerator: str | None = None
    accelerator_count: int = 0
    local_ssd_gib: float = 0.0
    nic_gbps: float | None = None
    nic_gbps_tier1: float | None = None
    nic_evidence: str = ""
    usd_hour: float | None = None
    usd_hour_spot: float | None = None
    usd_month_sustained: float | None = None
    usd_month_commit_1y: float | None = None
    usd_month_commit_3y: float | None = None
    region: str = ""
    as_of: str = ""
    source: str = ""
    evidence: str = ""
    cores_are_hyperthreads: bool = True
    kubernetes: bool = True

    @property
    def physical_cores(self) -> float:
        """Return the physical cores: half the vCPUs where two share one."""
        return self.vcpus / 2 if self.cores_are_hyperthreads else float(self.vcpus)

    @property
    def family(self) -> str:
        """Return the name's first token, such as `c2`."""
        return self.name.split("-", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A GPU: dense peak rates in TFLOP/s, memory in GiB and GB/s; peer and host links in GB/s in each direction.

    `evidence` is the weakest tag among the fields, `field_evidence` the tags one by one.
    """

    name: str
    fp32_tflops: float
    tf32_tflops: float
    fp16_tflops: float
    hbm_gib: float
    hbm_gb_per_s: float
    peer_gb_per_s: float
    host_link_gb_per_s: float
    source: str
    evidence: str
    field_evidence: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One figure: its value in `unit`, where it comes from, and how sure it is."""

    name: str
    value: float
    unit: str
    source: str
    evidence: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that is known about what can be rented."""

    machines: Mapping[str, MachineType]
    accelerators: Mapping[str, Accelerator]
    links: Mapping[str, Fact]
    egress: Mapping[str, Fact]
    storage: Mapping[str, Fact]
    hosts: Mapping[str, Fact]

    def find(self, name: str, scenario: Scenario | None = None) -> MachineType | None:
        """Return a machine type of the scenario's own, or of the catalogue, or None."""
        inline = scenario.cluster.machine_types.get(name) if scenario else None
        return self.machines.get(name) if inline is None else from_inline(name, inline)

    def machine(self, name: str, scenario: Scenario | None = None) -> MachineType:
        """Return a machine type as `find` does; raises ScenarioError with a did-you-mean."""
        machine = self.find(name, scenario)
        if machine is None:
            own = scenario.cluster.machine_types if scenario else {}
            at = Position(file=scenario.name if scenario else "(catalogue)")
            raise error_at(at, f"unknown machine type {shown(name)}", did_you_mean(name, [*self.machines, *own]))
        return machine


def from_inline(name: str, inline: InlineMachine) -> MachineType:
    """Return a scenario's own machine type in the catalogue's form; it has a price on demand at most."""
    return MachineType(
        name=name,
        vcpus=inline.vcpus,
        ram_gib=inline.ram_gib,
        accelerator=inline.accelerator,
        accelerator_count=inline.accelerator_count,
        nic_gbps=inline.nic / 1e9,
        nic_gbps_tier1=None if inline.nic_tier1 is None else inline.nic_tier1 / 1e9,
        nic_evidence=inline.evidence,
        usd_hour=inline.usd_per_hour,
        source=inline.source,
        evidence=inline.evidence,
        cores_are_hyperthreads=inline.cores_are_hyperthreads,
        kubernetes=inline.kubernetes,
    )


@lru_cache(maxsize=1)
def load_catalog() -> Catalog:
    """Return the packaged catalogue, read once."""
    return Catalog(
        machines=_machines(),
        accelerators={name: Accelerator(name=name, **fields) for name, fields in _entries("accelerators.yaml").items()},
        links=_facts("links.yaml"),
        egress=_facts("egress.yaml"),
        storage=_facts("storage.yaml"),
        hosts=_facts("hosts.yaml"),
    )


def _entries(file: str) -> Mapping[str, Any]:
    """Return a YAML file of the catalogue as plain data."""
    entries: Any = plain(read_tree(catalog_path(file)))
    return dict(entries)


def _facts(file: str) -> dict[str, Fact]:
    """Return a file of figures; `source` and `evidence` are repeated in every entry, so that none is without."""
    return {name: Fact(name=name, **fields) for name, fields in _entries(file).items()}


def _machines() -> dict[str, MachineType]:
    """Return the machine types of machines.csv; lines that begin with # are comments."""
    lines = [line for line in read_text(catalog_path("machines.csv")).splitlines() if not line.startswith("#")]
    return {row["machine_type"]: _machine(row) for row in csv.DictReader(lines)}


def _machine(row: Mapping[str, str]) -> MachineType:
    """Return one line of machines.csv; an empty cell is not known."""
    return MachineType(
        name=row["machine_type"],
        vcpus=int(row["vcpus"]),
        ram_gib=float(row["ram_gib"]),
        accelerator=row["accelerator"] or None,
        accelerator_count=int(row["accelerator_count"]),
        local_ssd_gib=float(row["local_ssd_gib"]),
        nic_gbps=_number(row["nic_gbps"]),
        nic_gbps_tier1=_number(row["nic_gbps_tier1"]),
        nic_evidence=row["nic_evidence"],
        usd_hour=_number(row["usd_hour"]),
        usd_hour_spot=_number(row["usd_hour_spot"]),
        usd_month_sustained=_number(row["usd_month_sustained"]),
        usd_month_commit_1y=_number(row["usd_month_commit_1y"]),
        usd_month_commit_3y=_number(row["usd_month_commit_3y"]),
        region=row["region"],
        as_of=row["as_of"],
        source=row["source"],
        evidence=row["evidence"],
    )


def _number(cell: str) -> float | None:
    """Return a cell's number, or None where it is empty."""
    return float(cell) if cell else None
