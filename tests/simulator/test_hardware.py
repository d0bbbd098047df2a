"""Who shares which machine: hosted tiers share their host's network cards, processes of a machine share its card and cores."""

from __future__ import annotations

import numpy as np
import pytest

from persia.scenario import load_catalog, load_profile, load_scenario
from simulator.hardware import Cluster
from tests.simulator.small_clusters import TIERS, small

CATALOG, PROFILE = load_catalog(), load_profile("persia-original")
HOSTED = (f"{TIERS}.embedding_worker={{hosted_on: parameter_server, count: 2}}",)


def cluster(*overrides: str) -> Cluster:
    return Cluster(small(*overrides), CATALOG, PROFILE)


def test_every_tier_has_the_cards_of_its_own_machines() -> None:
    built = cluster()
    assert {host: len(nics) for host, nics in built.nics.items()} == {
        "loader": 2,
        "embedding_worker": 2,
        "parameter_server": 2,
        "nn_worker": 4,
    }
    assert built.nic_bytes_per_s("nn_worker") == pytest.approx(PROFILE["wire.nic_efficiency"] * 100e9 / 8)
    assert built.nic("nn_worker", 0) is not built.nic("nn_worker", 1)
    assert not built.same_machine("embedding_worker", 0, "parameter_server", 0)


def test_a_hosted_tier_uses_its_hosts_cards() -> None:
    built = cluster(*HOSTED)
    assert list(built.nics) == ["loader", "parameter_server", "nn_worker"]
    assert built.nic("embedding_worker", 1) is built.nic("parameter_server", 1)
    assert built.same_machine("embedding_worker", 1, "parameter_server", 1)
    assert not built.same_machine("embedding_worker", 1, "parameter_server", 0)
    worker = built.nic("embedding_worker", 1).tx
    before_s = built.server_nics.tx.busy_until_s.copy()
    worker.send(5.0, 1e6)
    assert built.server_nics.tx.busy_until_s[1] == pytest.approx(5.0 + 1e6 / built.nic_bytes_per_s("parameter_server"))
    assert built.server_nics.tx.busy_until_s[0] == before_s[0]


def test_processes_of_one_machine_share_its_card_and_its_cores() -> None:
    two_each = (f"{TIERS}.nn_worker.count=2", f"{TIERS}.nn_worker.processes_per_machine=2")
    built = cluster(*two_each, f"{TIERS}.parameter_server.processes_per_machine=4")
    assert len(built.nics["nn_worker"]) == 2
    assert built.nic("nn_worker", 0) is built.nic("nn_worker", 1)
    assert built.nic("nn_worker", 1) is not built.nic("nn_worker", 2)
    assert (built.server_cores.servers, built.server_cores.cores) == (8, 2)  # eight cores to four processes, on each of two machines
    sizes = np.arange(8.0).reshape(1, 8) * 1e6
    rate = built.nic_bytes_per_s("parameter_server")
    np.testing.assert_allclose(built.server_nics.transmission_s(sizes), [[6e6 / rate, 22e6 / rate]])


def test_threads_can_be_set() -> None:
    built = cluster(f"{TIERS}.parameter_server.threads_per_process=3", f"{TIERS}.embedding_worker.threads_per_process=1")
    assert built.server_cores.cores == 3
    assert [cores.count for cores in built.worker_cores] == [1, 1]


def test_a_slow_machine_slows_all_its_processes_and_no_other() -> None:
    slow = "simulation.slow_machines=[{tier: parameter_server, index: 1, factor: 3}]"
    built = cluster(f"{TIERS}.parameter_server.processes_per_machine=2", slow)
    assert built.slow["parameter_server"].tolist() == [1.0, 1.0, 3.0, 3.0]
    assert built.slow["nn_worker"].tolist() == [1.0] * 4


def test_one_machine_has_no_network() -> None:
    built = Cluster(load_scenario("laptop"), CATALOG, PROFILE)
    assert built.one_machine
    assert built.nic_bytes_per_s("nn_worker") == PROFILE["wire.loopback_bytes_per_s"]
    assert built.latency_s("nn_worker", "parameter_server") == 15e-6
    assert built.pipes("embedding_worker", "parameter_server") == ()


def test_latency_between_tiers_follows_zones_and_overrides() -> None:
    far = f"{TIERS}.parameter_server.zone=us-central1-b"
    link = "cluster.network.links=[{from: loader, to: nn_worker, latency: 5ms}]"
    built = cluster(far, link)
    assert built.latency_s("embedding_worker", "parameter_server") == pytest.approx(92e-6)
    assert built.latency_s("embedding_worker", "nn_worker") == pytest.approx(36e-6)
    assert built.latency_s("nn_worker", "loader") == pytest.approx(5e-3)


def test_an_override_of_bandwidth_is_one_link_for_both_who_use_it() -> None:
    built = cluster("cluster.network.links=[{from: embedding_worker, to: parameter_server, bandwidth: 1Gbps}]")
    (pipe,) = built.pipes("embedding_worker", "parameter_server")
    assert pipe.bytes_per_s == 2 * 1e9 / 8  # two machines at each end
    assert built.pipes("embedding_worker", "parameter_server") == (pipe,)
    assert built.pipes("embedding_worker", "nn_worker") == ()
