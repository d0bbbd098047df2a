"""The look before a simulation: its bounds are bounds, and what does not fit is refused."""

from __future__ import annotations

import pytest

from simulator import Infeasible, check
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL, TIERS, rate, run_small, small
from tests.simulator.test_bottleneck import CASES

MODES = ("sync", "async", "naive-hybrid", "hybrid")
# A window of 100 steps may hold up to ten batches of each rank that were looked up before it: 1 % where a server is saturated.
NOISE = 1.01


@pytest.mark.parametrize("fidelity", ["phase", "message"])
@pytest.mark.parametrize("mode", MODES)
def test_no_mode_is_faster_than_any_bound(mode: str, fidelity: str) -> None:
    overrides = (f"schedule.mode={mode}", f"simulation.fidelity={fidelity}")
    measured = rate(run_small(overrides, 60))
    bounds = check(small(*overrides)).bounds
    assert {resource: bound for resource, bound in bounds.items() if measured > NOISE * bound} == {}


@pytest.mark.parametrize("shrunk", CASES)
def test_no_shrunk_cluster_is_faster_than_any_bound(shrunk: str) -> None:
    overrides = CASES[shrunk][0]
    measured = rate(run_small(overrides, 100))
    bounds = check(small(*overrides)).bounds
    assert {resource: bound for resource, bound in bounds.items() if measured > NOISE * bound} == {}


@pytest.mark.parametrize(
    ("shrunk", "resource"),
    [
        ("loader processors", "loader.cpu"),
        ("worker processors", "embedding_worker.cpu"),
        ("worker network", "embedding_worker.nic"),
        ("server processors", "parameter_server.cpu"),
        ("server network", "parameter_server.nic"),
        ("host work", "nn_worker.training_lane"),
        ("all-reduce", "nn_worker.training_lane"),
    ],
)
def test_the_tightest_bound_is_that_of_what_is_shrunk_and_close(shrunk: str, resource: str) -> None:
    overrides = CASES[shrunk][0]
    name, bound = next(iter(check(small(*overrides)).bounds.items()))
    assert name == resource
    assert bound == pytest.approx(rate(run_small(overrides, 100)), rel=0.05)


def test_what_does_not_fit_is_refused_before_a_simulation() -> None:
    too_large = ("model.features[0].rows=1000000000",)
    report = check(small(*too_large))
    assert not report.fits
    assert report.excuses[0].missing_gib > 0
    assert report.excuses[0].remedies
    with pytest.raises(Infeasible):
        simulate(SMALL, overrides=too_large, steps=10)


def test_the_report_is_plain_data() -> None:
    payload = check(small()).to_json()
    assert payload["fits"] is True
    assert list(payload["bounds"].values()) == sorted(payload["bounds"].values())
    assert set(payload["memory"]) == {"loader", "embedding_worker", "parameter_server", "nn_worker", "nn_worker_gpu"}


def test_a_machine_without_a_known_network_rate_is_refused() -> None:
    with pytest.raises(Infeasible, match="no network rate"):
        check(small(f"{TIERS}.parameter_server.machine_type=m3-ultramem-32"))
