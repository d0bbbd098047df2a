"""What fits and what does not, worked by hand, and remedies that hold when they are applied."""

from __future__ import annotations

import re

import pytest

from persia.scenario import load_catalog, load_profile, load_scenario
from simulator.allocatable import allocatable_gib, allocatable_vcpus, nic_bytes_per_s, reserved_gib
from simulator.costs import dense_layer_parameters
from simulator.excuse import Excuse, Infeasible
from simulator.memory import EMULATED_RANK_FIXED_GIB, EMULATED_VECTORS, memory_fit
from simulator.result import TierMemory
from simulator.rows import Rows, imbalance_bytes

GIB = 2.0**30
CATALOG = load_catalog()


def fit(name: str, *overrides: str) -> tuple[dict[str, TierMemory], list[Excuse]]:
    """Memory and excuses of a packaged scenario."""
    scenario = load_scenario(name, overrides)
    return memory_fit(scenario, CATALOG, load_profile(scenario.simulation.profile))


@pytest.mark.parametrize(
    ("machine", "gib", "vcpus"),
    [
        ("m2-ultramem-416", 11_533.6, 414.9),
        ("m3-ultramem-128", 3_819.1, 127.6),
        ("a2-highgpu-8g", 659.5, 95.7),
        ("c2-standard-30", 111.1, 29.86),
    ],
)
def test_a_node_keeps_what_the_published_table_says(machine: str, gib: float, vcpus: float) -> None:
    assert allocatable_gib(CATALOG.machines[machine]) == pytest.approx(gib, abs=0.05)
    assert allocatable_vcpus(CATALOG.machines[machine]) == pytest.approx(vcpus, abs=0.05)


def test_reserved_memory_by_hand() -> None:
    assert reserved_gib(11_776) == pytest.approx(1 + 0.8 + 0.8 + 6.72 + 0.02 * (11_776 - 128) + 100 / 1024)
    assert reserved_gib(2) == pytest.approx(0.5 + 100 / 1024)


def test_a_machine_without_kubernetes_keeps_only_the_system() -> None:
    laptop = CATALOG.machine("laptop", load_scenario("laptop"))
    assert (allocatable_gib(laptop), allocatable_vcpus(laptop)) == (15.0, 8.0)


def test_the_reference_fits_and_its_rows_are_these() -> None:
    fits, excuses = fit("persia-100t")
    assert not excuses
    assert all(tier.fits for tier in fits.values())
    servers = fits["parameter_server"]
    assert servers.available_gib == pytest.approx(30 * 11_533.62, rel=1e-5)
    scenario = load_scenario("persia-100t")
    feature = scenario.model.features[0]
    rows = feature.count * feature.rows
    assert feature.optimizer == "rowwise-adagrad"
    assert servers.parts_gib["embeddings"] * GIB == pytest.approx(rows * feature.dim * feature.bytes_per_parameter)
    assert servers.parts_gib["optimizer_state"] * GIB == pytest.approx(rows * 4.0)
    assert servers.parts_gib["keys_and_links"] * GIB == pytest.approx(rows * 90.0)
    assert servers.parts_gib["imbalance"] < 1e-4 * servers.needed_gib
    assert servers.needed_gib == pytest.approx(sum(servers.parts_gib.values()))


def test_fp32_misses_about_a_hundred_terabytes() -> None:
    fits, (excuse,) = fit("fp32-does-not-fit")
    assert not fits["parameter_server"].fits
    servers = fits["parameter_server"]
    assert excuse.reason == "parameter servers need 473.6 TB and have 371.5 TB: 102.1 TB are missing"
    assert excuse.missing_gib == pytest.approx(servers.needed_gib - servers.available_gib)
    assert excuse.bottleneck == "parameter_server memory"


REMEDIES = {
    r"take (\d+) m2-ultramem-416": "cluster.tiers.parameter_server.count={}",
    r"in (2) bytes": "model.features[0].bytes_per_parameter={}",
    r"the optimizer (rowwise-adagrad)": "model.features[0].optimizer={}",
}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("fp32-does-not-fit", ()),
        ("dim-16-does-not-fit", ()),
        ("persia-100t", ("model.features[0].optimizer=adam",)),
        ("persia-100t", ("cluster.tiers.parameter_server.count=4",)),
        ("persia-100t", ("cluster.tiers.parameter_server.processes_per_machine=8", "cluster.tiers.parameter_server.count=3")),
    ],
)
def test_remedies_work_when_applied_and_are_the_least_that_do(name: str, overrides: tuple[str, ...]) -> None:
    _, (excuse,) = fit(name, *overrides)
    text = "\n".join(excuse.remedies)
    assert len(excuse.remedies) >= 3
    for pattern, override in REMEDIES.items():
        found = re.search(pattern, text)
        if found is not None:
            assert not fit(name, *overrides, override.format(found[1]))[1]
    count = re.search(r"take ([\d,]+) m2", text)
    assert count is not None
    one_less = int(count[1].replace(",", "")) - 1
    assert fit(name, *overrides, f"cluster.tiers.parameter_server.count={one_less}")[1]


def test_the_least_dim_is_the_least() -> None:
    _, (excuse,) = fit("dim-16-does-not-fit")
    found = re.search(r"dim (\d+) instead of 16", "\n".join(excuse.remedies))
    assert found is not None
    dim = int(found[1])
    rows = load_scenario("dim-16-does-not-fit").model.features[0].rows

    def refused(dim: int) -> bool:
        return bool(fit("dim-16-does-not-fit", f"model.features[0].dim={dim}", f"model.features[0].rows={rows * 16 // dim}")[1])

    assert refused(dim - 1)
    assert not refused(dim)


def test_the_most_parameters_and_the_share_of_rows_fit() -> None:
    _, (excuse,) = fit("fp32-does-not-fit")
    text = "\n".join(excuse.remedies)
    trillions = re.search(r"at most ([\d.]+) T parameters", text)
    percent = re.search(r"at most ([\d.]+) % of these rows", text)
    assert trillions is not None
    assert percent is not None
    rows = load_scenario("fp32-does-not-fit").model.features[0].rows
    assert not fit("fp32-does-not-fit", f"model.features[0].rows={int(rows * float(trillions[1]) / 100)}")[1]
    assert fit("fp32-does-not-fit", f"model.features[0].rows={int(rows * (float(trillions[1]) + 0.1) / 100)}")[1]
    assert not fit("fp32-does-not-fit", f"model.features[0].resident_rows={int(rows * float(percent[1]) / 100)}")[1]


def test_evicted_rows_take_no_memory() -> None:
    fits, _ = fit("persia-100t", "model.features[0].resident_rows=1e9")
    assert fits["parameter_server"].parts_gib["embeddings"] * GIB == pytest.approx(26e9 * 128 * 2)


def test_tiers_on_one_machine_share_it() -> None:
    fits, _ = fit("laptop")
    together = sum(fits[tier].needed_gib for tier in ("loader", "embedding_worker", "parameter_server", "nn_worker"))
    assert fits["nn_worker"].available_gib == pytest.approx(15.0 - together + fits["nn_worker"].needed_gib)
    assert "nn_worker_gpu" not in fits
    assert "weights" in fits["nn_worker"].parts_gib
    _, (excuse,) = fit("laptop", "cluster.machine_types.laptop.ram_gib=8")
    assert excuse.reason.startswith("parameter servers with loaders and embedding workers and NN workers need")
    assert excuse.missing_gib == pytest.approx(together - 7.0)


def test_guests_on_some_of_the_machines_overflow_only_those() -> None:
    """Hundreds of loader processes of 1 GiB on 2 of 8 machines: only those two overflow."""
    guests = 640
    crowd = ("cluster.tiers.loader.count=2", f"cluster.tiers.loader.processes_per_machine={guests}")
    fits, (excuse,) = fit("persia-100t", *crowd)
    each = fits["nn_worker"].needed_gib / 8 + guests
    there = allocatable_gib(CATALOG.machines["a2-highgpu-8g"])
    assert there < each
    assert excuse.missing_gib == pytest.approx(2 * (each - there))
    assert fits["loader"].available_gib == pytest.approx(2 * (there - each + guests))


def test_a_batch_too_large_for_the_accelerator_is_refused_with_the_largest_that_fits() -> None:
    fits, excuses = fit("persia-100t", "workload.batch_size=600_000")
    assert not fits["nn_worker_gpu"].fits
    excuse = next(excuse for excuse in excuses if "accelerator" in excuse.bottleneck)
    found = re.search(r"from 600,000 to ([\d,]+)", excuse.remedies[0])
    assert found is not None
    largest = int(found[1].replace(",", ""))
    assert fit("persia-100t", f"workload.batch_size={largest}")[0]["nn_worker_gpu"].fits
    assert not fit("persia-100t", f"workload.batch_size={largest + 2000}")[0]["nn_worker_gpu"].fits


def test_buffered_batches_overflow_an_embedding_worker() -> None:
    one = ("cluster.tiers.embedding_worker.count=1", "schedule.input_queue_batches=100_000")
    fits, (excuse,) = fit("persia-100t", *one, "schedule.buffered_batches_per_loader=1_000_000")
    assert not fits["embedding_worker"].fits
    assert "embedding workers need" in excuse.reason
    assert any("input_queue_batches" in remedy for remedy in excuse.remedies)
    capped, excuses = fit("persia-100t", *one, "schedule.buffered_batches_per_loader=1000")
    assert not excuses
    assert "buffered_batches_per_loader" in capped["embedding_worker"].note


def test_imbalance_is_four_sigma_of_a_binomial() -> None:
    kinds = [Rows(rows=1e6, dim=16, bytes_per_parameter=4, optimizer="adagrad")]
    assert kinds[0].row_bytes(90.0) == 16 * 8 + 90
    assert imbalance_bytes(kinds, 10, 90.0) == pytest.approx(4 * (1e6 * 0.1 * 0.9) ** 0.5 * 218)
    assert imbalance_bytes(kinds, 1, 90.0) == 0.0


def test_a_machine_without_a_known_network_rate_is_refused() -> None:
    scenario = load_scenario("persia-100t", ("cluster.tiers.parameter_server.machine_type=m4-ultramem-224",))
    with pytest.raises(Infeasible, match="no network rate of m4-ultramem-224"):
        nic_bytes_per_s(scenario, CATALOG, "parameter_server")


def test_an_emulated_rank_holds_no_model_and_no_framework() -> None:
    wide = "model.dense.layers=[65536, 65536]"
    for mode, vectors in (("hybrid", 0.0), ("async", EMULATED_VECTORS)):
        overrides = (wide, f"schedule.mode={mode}")
        parts = fit("emulated-8", *overrides)[0]["nn_worker"].parts_gib
        parameters = sum(dense_layer_parameters(load_scenario("emulated-8", overrides)))
        assert parts["process"] == pytest.approx(8 * EMULATED_RANK_FIXED_GIB)
        assert parts["dense_vectors"] == pytest.approx(8 * vectors * 4 * parameters / GIB)
        assert "weights" not in parts
