"""What it runs on: machine types, tiers, network and prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from persia.scenario.base import (
    Count,
    Evidence,
    Many,
    Multiplicity,
    Name,
    NonNegativeReal,
    Part,
    PositiveRate,
    PositiveReal,
    Quantity,
    Seconds,
    Text,
    TierName,
)
from persia.scenario.units import COUNT


class InlineMachine(Part):
    """A machine type of the scenario's own, beside the catalogue's; its name shadows the catalogue's."""

    vcpus: Multiplicity = Field(description="Hardware threads that the operating system sees.", examples=[8])
    ram_gib: PositiveReal = Field(description="Memory in GiB.", examples=[32])
    accelerator: Name | None = Field(default=None, description="Accelerator of the catalogue, or null.", examples=["v100"])
    accelerator_count: Count = Field(default=0, description="Accelerators in a machine.", examples=[8])
    nic: PositiveRate = Field(description="Network rate in each direction.", examples=["32Gbps"])
    nic_tier1: PositiveRate | None = Field(default=None, description="Network rate with Tier_1 networking, or null.", examples=["50Gbps"])
    usd_per_hour: NonNegativeReal | None = Field(default=None, description="List price, or null where none is known.", examples=[1.57])
    kubernetes: bool = Field(default=True, description="Whether a node's share of memory and CPU goes to Kubernetes.", examples=[True])
    cores_are_hyperthreads: bool = Field(default=True, description="Whether two vCPUs share one physical core.", examples=[True])
    source: Text = Field(default="the scenario", description="Where these figures come from.", examples=["vendor's data sheet"])
    evidence: Evidence = Field(default="M", description="Evidence tag of these figures, as in assumptions.", examples=["M"])


class Tier(Part):
    """One role's processes: on machines of their own (machine_type), or on another tier's (hosted_on)."""

    machine_type: Name | None = Field(default=None, description="Machine type; null where hosted_on is set.", examples=["c2-standard-30"])
    count: Multiplicity = Field(description="Machines.", examples=[100])
    processes_per_machine: Annotated[int, Quantity(dimension=COUNT, low=1, high=4096)] = Field(
        default=1, description="Processes on each machine; for nn_worker these are the ranks, one to an accelerator.", examples=[8]
    )
    threads_per_process: Annotated[int, Quantity(dimension=COUNT, low=1, high=4096)] | None = Field(
        default=None, description="Worker threads of a process; null shares the machine's vCPUs out equally.", examples=[4]
    )
    cpu_quota: PositiveReal | None = Field(
        default=None,
        description="Cores that one process may use on a machine whose processor is shared, as of a control group; null is no limit.",
        examples=[0.5],
    )
    hosted_on: TierName | None = Field(
        default=None, description="Tier on whose machines this one runs, at no further cost.", examples=["embedding_worker"]
    )
    zone: Name | None = Field(default=None, description="Zone of the machines; null takes network.zone.", examples=["us-central1-b"])
    nic_tier1: bool = Field(default=False, description="Pay for the higher network rate, where the machine type has one.", examples=[True])


class Tiers(Part):
    """The four tiers."""

    loader: Tier = Field(description="Reads samples; sends IDs to embedding workers, numeric features to NN workers.")
    embedding_worker: Tier = Field(description="Deduplicates IDs, asks the servers, pools rows; un-pools gradients.")
    parameter_server: Tier = Field(description="Holds the embedding tables in memory and applies the sparse optimizer.")
    nn_worker: Tier = Field(description="Trains the dense network; one process is one rank.")


class Link(Part):
    """An override of bandwidth or latency between two tiers or zones, in both directions."""

    source: Name = Field(alias="from", description="A tier or a zone.", examples=["embedding_worker"])
    target: Name = Field(alias="to", description="A tier or a zone.", examples=["parameter_server"])
    bandwidth: PositiveRate | None = Field(
        default=None, description="Rate of one machine over this link, each direction.", examples=["10Gbps"]
    )
    latency: Seconds | None = Field(default=None, description="One-way latency.", examples=["80us"])


class Network(Part):
    """Latency, zones and oversubscription."""

    region: Name = Field(default="us-central1", description="Region of all machines.", examples=["us-central1"])
    zone: Name = Field(default="us-central1-a", description="Zone of tiers that name none.", examples=["us-central1-a"])
    latency_same_zone: Seconds = Field(default=36e-6, description="One-way latency between two machines of a zone.", examples=["36us"])
    latency_cross_zone: Seconds = Field(default=92e-6, description="One-way latency between two zones of the region.", examples=["92us"])
    latency_same_host: Seconds = Field(default=15e-6, description="One-way latency between two processes of a machine.", examples=["15us"])
    fabric_oversubscription: PositiveReal = Field(
        default=1.0, description="How many times the NICs of a zone exceed its fabric; 1 never congests.", examples=[1.0]
    )
    accelerator_peer_to_peer: bool = Field(
        default=True, description="Whether a machine's accelerators exchange gradients directly, not through host memory.", examples=[True]
    )
    links: Many[Link] = Field(default=(), max_length=1000, description="Overrides, the last one that fits wins.", examples=[[]])


class Cluster(Part):
    """Machines and network."""

    machine_types: Mapping[str, InlineMachine] = Field(
        default_factory=dict, max_length=1000, description="Machine types beside the catalogue, by name.", examples=[{}]
    )
    tiers: Tiers = Field(description="What each role runs on.")
    network: Network = Field(default_factory=Network, description="Latency, zones and oversubscription.")


class Pricing(Part):
    """How the bill is made."""

    model: Literal["on-demand", "spot", "sustained-use", "commit-1y", "commit-3y"] = Field(
        default="on-demand", description="Which of the catalogue's prices applies.", examples=["on-demand"]
    )
    egress: bool = Field(default=True, description="Whether traffic between zones is on the bill.", examples=[True])
