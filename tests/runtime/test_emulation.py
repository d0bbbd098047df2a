"""Emulated accelerators: ranks wait for the predicted time, without torch; everything else is as real as ever, and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.emulation import emulated_dense
from persia.commands.training import result_json, summary
from persia.embedding.precision import WIRES, encode
from persia.runtime.checkpoint import CheckpointError, check_matches, read_dense
from persia.runtime.coordinator import Options, RunFailed
from persia.runtime.emulation import zeros_on_wire
from persia.runtime.plan import make_plan
from persia.runtime.session import Session
from persia.scenario import Scenario, load_catalog, load_profile, load_scenario
from persia.schedule import messages as m
from persia.schedule.log import replay
from persia.schedule.modes import Reduction
from persia.trace import Span
from simulator.costs import DenseCosts, dense_costs
from simulator.run import simulate
from tests.runtime.runs import Run, scenario_of, train
from tests.support import ROOT, persia_environment

MODES = ("sync", "async", "naive-hybrid", "hybrid")
RANKS, STEPS = 3, 12
CLOCKS_S = 2e-3  # two processes may read the time so differently
ENDS = (("host work", lambda span: span.start_s), ("optimizer", lambda span: span.end_s))
SLOW = "simulation.emulated_accelerator=l4", "model.dense.layers=[512, 256]", "model.dense.architecture=mlp"
PROFILE_LINE = "accelerator.l4.matmul_efficiency: {value: 2.0e-5, unit: '1', evidence: M, source: a test}"


def emulated(folder: Path, *overrides: str, steps: int = STEPS, ranks: int = RANKS, case: int = 3) -> Scenario:
    """A case's scenario on accelerators that are slow enough to be told from everything else."""
    profile = folder / "slow.yaml"
    packaged = ROOT / "scenarios" / "profiles" / "persia-original.yaml"
    profile.write_text(packaged.read_text(encoding="utf-8") + f"  {PROFILE_LINE}\n", encoding="utf-8")
    return scenario_of(case, *SLOW, f"simulation.profile={profile}", *overrides, steps=steps, ranks=ranks)


def run(scenario: Scenario, folder: Path) -> Run:
    return train(scenario, folder, options=Options(emulated=emulated_dense(scenario)))


def costs_of(scenario: Scenario) -> DenseCosts:
    return dense_costs(scenario, load_catalog(), load_profile(scenario.simulation.profile))


@pytest.fixture(scope="module", params=MODES)
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("emulated")
    return run(emulated(folder, f"schedule.mode={request.param}"), folder)


def test_every_log_replays_and_every_batch_is_applied_everywhere(ended: Run) -> None:
    for header, entries in ended.logs().values():
        assert replay(header, entries) is None
    assert sum(ended.reported_staleness().values()) == RANKS * STEPS * ended.plan.servers
    assert len(ended.outcome.trained_s) == RANKS * STEPS


def test_a_step_takes_the_emulated_time_at_least(ended: Run) -> None:
    dense = emulated_dense(ended.scenario)
    assert dense is not None
    assert dense.step_s > 10 * CLOCKS_S
    ranks = [entries for name, (_, entries) in ended.logs().items() if name.startswith("nn_worker")]
    begun_s = {c.batch: e.time_s for entries in ranks for e in entries for c in e.commands if isinstance(c, m.TrainDense)}
    done_s = {e.event.batch: e.time_s for entries in ranks for e in entries if isinstance(e.event, m.DenseDone)}
    assert len(begun_s) == len(done_s) == RANKS * STEPS
    for step in range(STEPS):
        batches = range(step * RANKS, (step + 1) * RANKS)
        last_s = max(begun_s[batch] for batch in batches)
        for batch in batches:
            since_s = begun_s[batch] if ended.plan.header.rank.reduction is Reduction.NONE else last_s
            assert done_s[batch] - since_s > dense.step_s - CLOCKS_S
    spans = [span for span in ended.trace() if isinstance(span, Span) and span.name == "train (emulated)"]
    assert sorted(span.batch for span in spans) == list(range(RANKS * STEPS))


def test_nothing_was_trained_but_everything_was_moved(ended: Run) -> None:
    dense = emulated_dense(ended.scenario)
    assert dense is not None
    assert read_dense(ended.checkpoint()) == {}
    vector = ended.dense_vector() if ended.scenario.schedule.mode == "async" else np.zeros(dense.parameters)
    assert len(vector) == dense.parameters
    assert not vector.any()
    assert all(len(ended.rows(group).keys) > 0 for group in range(len(ended.plan.groups)))


def test_the_result_says_that_it_is_emulated(ended: Run) -> None:
    result = result_json(ended.scenario, ended.outcome, digest="")
    assert result["emulated"] == "l4"
    assert result["loss"] is None
    assert set(result["quality"].values()) == {None, 0}
    assert summary(result)[0].endswith("trained · emulated l4")
    assert result["stages_s"]["nn_worker"]["train (emulated)"] > 0.0


def test_a_real_run_says_that_it_is_not() -> None:
    assert emulated_dense(load_scenario("planted-small")) is None
    assert simulate("planted-small", steps=20).to_json()["emulated"] is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_both_worlds_wait_as_long(tmp_path: Path, mode: str, ranks: int) -> None:
    scenario = emulated(tmp_path, f"schedule.mode={mode}", ranks=ranks)
    dense, costs = emulated_dense(scenario), costs_of(scenario)
    assert dense is not None
    result = simulate(scenario, steps=60)
    assert result.emulated == "l4"
    spans = [span for span in result.spans if span.tier == "nn_worker" and span.batch // ranks == 25]
    begins_s, ends_s = ({span.batch: at(span) for span in spans if span.name == name} for name, at in ENDS)
    assert len(begins_s) == len(ends_s) == ranks  # no more ranks are traced
    for batch, end_s in ends_s.items():
        since_s = begins_s[batch] if mode == "async" else max(begins_s.values())
        assert end_s - since_s == pytest.approx(dense.step_s, rel=1e-6)
    reduction = make_plan(scenario).header.rank.reduction
    assert (costs.exposed_all_reduce_s(reduction, ranks) > 0.0) == (mode != "async" and ranks > 1)
    assert costs.host_s == 0.0
    assert dense.parameters == costs.parameters


def test_a_profile_may_make_the_host_part_of_the_wait(tmp_path: Path) -> None:
    scenario = emulated(tmp_path)
    profile = Path(scenario.simulation.profile)
    without = emulated_dense(scenario)
    profile.write_text(
        profile.read_text(encoding="utf-8") + "  rank.emulated_host_share: {value: 0.5, unit: '1', evidence: M, source: a test}\n",
        encoding="utf-8",
    )
    assert costs_of(scenario).host_s > 0.0
    dense = emulated_dense(scenario)
    assert without is not None
    assert dense is not None
    assert dense.step_s == pytest.approx(without.step_s + costs_of(scenario).host_s)


def test_an_emulated_rank_imports_neither_torch_nor_a_compiler() -> None:
    program = (
        "import sys, persia.runtime.node, persia.runtime.make_emulated_rank\n"
        "print([name for name in ('torch', 'numba', 'simulator') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=persia_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (7, 3, 40)])
def test_zeros_travel_as_the_real_encoder_would_send_them(wire: str, shape: tuple[int, ...]) -> None:
    sent, real = zeros_on_wire(shape, wire), encode(np.zeros(shape, np.float32), wire)
    assert [(array.dtype, array.shape) for array in sent] == [(array.dtype, array.shape) for array in real]
    assert all(np.array_equal(*pair) for pair in zip(sent, real, strict=True))


@pytest.mark.parametrize("case", [0, 1])
def test_scaled_and_raw_gradients_keep_their_shapes(tmp_path: Path, case: int) -> None:
    wire = "schedule.precision.worker_rank=fp16-scaled"
    assert len(run(emulated(tmp_path, wire, steps=4, ranks=1, case=case), tmp_path).outcome.trained_s) == 4


def test_an_emulated_checkpoint_is_no_real_one(tmp_path: Path) -> None:
    scenario = emulated(tmp_path, "schedule.checkpoint_every_steps=2", steps=4, ranks=2)
    ended = run(scenario, tmp_path)
    simulation = scenario.simulation.model_copy(update={"emulated_accelerator": None})
    real = scenario.model_copy(update={"simulation": simulation})
    with pytest.raises(CheckpointError, match="emulated was 'l4', is None"):
        check_matches(ended.checkpoint(), make_plan(real))


def test_a_run_without_the_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="emulated_accelerator"):
        train(emulated(tmp_path), tmp_path)


def test_a_session_carries_the_times(tmp_path: Path) -> None:
    dense = emulated_dense(emulated(tmp_path))
    session = Session(
        scenario="s",
        attempt="a",
        state="t",
        checkpoints="c",
        restore=None,
        first_step=0,
        began_at_s=0.0,
        token="",
        endpoints={},
        store=None,
        emulated=dense,
    )
    session.write(tmp_path / "session.json")
    assert Session.read(tmp_path / "session.json") == session
