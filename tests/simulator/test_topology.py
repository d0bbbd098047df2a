"""The map of the cluster: ways, latencies, prices, overrides."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from persia.scenario import load_catalog, load_scenario
from simulator.network.topology import Topology, build_topology

CATALOG = load_catalog()


def topology(name: str, *overrides: str) -> Topology:
    """The map of a packaged scenario."""
    return build_topology(load_scenario(name, overrides), CATALOG)


def test_the_reference_cluster_has_138_machines_and_their_cards() -> None:
    network = topology("persia-100t")
    kinds = [str(attributes["kind"]) for attributes in network.graph.nodes.values()]
    assert (kinds.count("machine"), kinds.count("nic"), kinds.count("zone"), kinds.count("region")) == (138, 138, 1, 1)
    assert len(network.capacity_bytes_per_s) == 2 * 138
    assert sorted(set(network.capacity_bytes_per_s * 8e-9)) == pytest.approx([32.0, 100.0])


def test_a_path_is_the_senders_card_and_the_receivers() -> None:
    network = topology("persia-100t")
    names = [network.link_names[link] for link in network.path("embedding_worker/7", "parameter_server/29")]
    assert names == [("embedding_worker/7", "embedding_worker/7/nic"), ("parameter_server/29/nic", "parameter_server/29")]
    assert network.path("embedding_worker/7", "parameter_server/29") != network.path("parameter_server/29", "embedding_worker/7")


@pytest.mark.parametrize("name", ["persia-100t", "cross-zone-servers"])
def test_the_way_is_the_shortest_in_the_graph(name: str) -> None:
    network = topology(name)
    for a, b in [("nn_worker/0", "embedding_worker/3"), ("embedding_worker/3", "parameter_server/2"), ("nn_worker/1", "nn_worker/2")]:
        assert network.nodes(a, b) == nx.shortest_path(network.graph, a, b)
        assert network.latency_s(a, b) == pytest.approx(nx.shortest_path_length(network.graph, a, b, weight="latency_s"))


def test_latencies_are_those_of_the_scenario() -> None:
    network = topology("cross-zone-servers")
    assert network.tier_latency_s("nn_worker", "embedding_worker") == pytest.approx(36e-6)
    assert network.tier_latency_s("embedding_worker", "parameter_server") == pytest.approx(92e-6)
    assert network.latency_s("loader/3", "nn_worker/3") == pytest.approx(15e-6)
    assert network.latency_s("loader/3", "nn_worker/4") == pytest.approx(36e-6)
    assert network.tier_latency_s("loader", "nn_worker") == pytest.approx(36e-6)
    assert topology("laptop").tier_latency_s("loader", "nn_worker") == pytest.approx(15e-6)
    assert network.crosses_zones("embedding_worker", "parameter_server")
    assert not network.crosses_zones("embedding_worker", "nn_worker")


def test_only_traffic_between_zones_is_paid() -> None:
    network = topology("cross-zone-servers")
    assert network.usd_per_gb("embedding_worker/0", "parameter_server/0") == 0.01
    assert network.usd_per_gb("parameter_server/0", "embedding_worker/0") == 0.01
    assert network.usd_per_gb("embedding_worker/0", "nn_worker/0") == 0.0


def test_a_hosted_tier_uses_its_hosts_card() -> None:
    network = topology("persia-100t")
    assert network.path("loader/3", "embedding_worker/0") == network.path("nn_worker/3", "embedding_worker/0")
    assert network.path("loader/3", "nn_worker/3") == ()
    with pytest.raises(KeyError):
        network.path("loader/8", "nn_worker/3")
    with pytest.raises(KeyError):
        network.path("nobody/0", "nn_worker/3")


def test_tier1_networking_widens_the_cards_of_its_tier() -> None:
    network = topology("tier1-network")
    sender, receiver = network.path("embedding_worker/0", "parameter_server/0")
    assert network.capacity_bytes_per_s[[sender, receiver]] * 8e-9 == pytest.approx([50.0, 32.0])


def test_an_oversubscribed_fabric_is_a_link_that_all_share() -> None:
    network = topology("persia-100t", "cluster.network.fabric_oversubscription=4")
    nics = 8 * 100 + 100 * 32 + 30 * 32
    path = network.path("embedding_worker/0", "parameter_server/0")
    assert len(path) == 3
    assert network.capacity_bytes_per_s[path[1]] * 8e-9 == pytest.approx(nics / 4)
    assert path[1] in network.path("nn_worker/0", "embedding_worker/1")


LINKS = "cluster.network.links=[{from: embedding_worker, to: parameter_server, bandwidth: 10Gbps, latency: 80us}]"


def test_an_override_limits_each_machine_and_sets_the_latency_both_ways() -> None:
    network = topology("persia-100t", LINKS)
    for a, b in (("embedding_worker/0", "parameter_server/3"), ("parameter_server/3", "embedding_worker/0")):
        rates = network.capacity_bytes_per_s[list(network.path(a, b))] * 8e-9
        assert rates == pytest.approx([10.0, 32.0, 32.0, 10.0])
        assert network.latency_s(a, b) == 80e-6
    assert network.tier_bandwidth_bytes_per_s("parameter_server", "embedding_worker") == pytest.approx(30 * 10e9 / 8)
    assert network.tier_bandwidth_bytes_per_s("nn_worker", "embedding_worker") is None
    assert len(network.path("nn_worker/0", "embedding_worker/0")) == 2


def test_the_last_override_that_fits_wins() -> None:
    both = "[{from: embedding_worker, to: parameter_server, latency: 80us}, {from: us-central1-b, to: us-central1-a, latency: 1ms}]"
    network = topology("cross-zone-servers", f"cluster.network.links={both}")
    assert network.latency_s("embedding_worker/0", "parameter_server/0") == 1e-3
    assert network.latency_s("embedding_worker/0", "nn_worker/0") == pytest.approx(36e-6)


def test_the_map_of_a_thousand_accelerators_is_quick() -> None:
    network = topology(
        "persia-100t",
        "cluster.tiers.nn_worker.count=128",
        "cluster.tiers.embedding_worker.count=1600",
        "cluster.tiers.parameter_server.count=480",
    )
    assert len(network.capacity_bytes_per_s) == 2 * (128 + 1600 + 480)
    assert np.isfinite(network.capacity_bytes_per_s).all()
