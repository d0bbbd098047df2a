"""Every malformed scenario is refused with file and line, in under a second; nothing but ScenarioError is ever raised."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persia.scenario import Scenario, ScenarioError, list_scenarios, load_scenario
from persia.scenario.explain import validate
from persia.scenario.packaged import scenario_path
from persia.scenario.source import as_mapping, parse
from tests.scenario.malformed_cases import CASES, COMMITTED, Case, materialise


@pytest.fixture(scope="module")
def malformed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(tmp_path_factory.mktemp("malformed"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_scenarios_are_refused(malformed: Path, case: Case) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(malformed / case.name)
    error = caught.value
    assert Path(error.file).name == case.blamed
    assert error.line == case.line
    assert error.column is not None
    assert error.column >= 1
    assert case.fragment in str(error)
    assert error.remedy
    assert len(str(error)) < 20_000


def test_every_committed_file_is_a_case_or_the_parent_of_one() -> None:
    named = {case.name for case in CASES} | {case.blamed for case in CASES}
    parents = {"circle-2.yaml", "circle-a.yaml"} | {f"deep-{number}.yaml" for number in range(10)}
    assert {path.name for path in COMMITTED.iterdir()} <= named | parents
    assert len(CASES) >= 40


VALID = scenario_path("in-house-v100-criteo").read_text(encoding="utf-8")
TOKENS = st.sampled_from(
    [
        *(
            "~",
            "&a ",
            "*a",
            "!!python/name:os.system ",
            "[",
            "]",
            "{",
            "}",
            ": ",
            "- ",
            "\n",
            "\t",
            "? ",
            "| ",
            "> ",
            "'",
            '"',
            "#",
            "---\n",
        ),
        *("\x00", "\x85", "\ufeff", "%YAML 1.1\n", "<<: ", ".nan", ".inf", "-1", "0", "1e999", "9" * 400, "yes", "null"),
        *("extends: laptop\n", "name", "rows", "é", "🦜"),
    ]
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A valid scenario with a few spans replaced by junk, tokens of YAML, or its own lines."""
    text = VALID
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 2, 5, 20, 200]))
        junk = draw(TOKENS | st.text(max_size=8) | st.sampled_from(VALID.splitlines(keepends=True)))
        text = text[:start] + junk + text[start + length :]
    return text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_mutations_raise_nothing_but_scenario_error(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.lists(TOKENS, max_size=30).map("".join))
def test_arbitrary_text_raises_nothing_but_scenario_error(text: str) -> None:
    check(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | mutations().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_files_raise_nothing_but_scenario_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(data)
    try:
        load_scenario(path)
    except ScenarioError as error:
        assert error.line is not None
        assert error.line >= 1


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=30)
    | st.tuples(
        st.sampled_from(["workload", "model.features[0].rows", "cluster.tiers", "name", "schedule.mode"]), st.text(max_size=30)
    ).map("=".join)
)
def test_arbitrary_overrides_raise_nothing_but_scenario_error(override: str) -> None:
    try:
        load_scenario("laptop", [override])
    except ScenarioError as error:
        assert error.remedy


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Scenario.model_fields, "features", "tiers", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*Scenario.model_fields, "extends"]), PLAIN))
def test_arbitrary_data_raises_nothing_but_scenario_error(data: dict[str, object]) -> None:
    try:
        load_scenario(data)
    except ScenarioError as error:
        assert error.lines()


def check(text: str) -> None:
    """Validate a text as a file without inheritance would be."""
    try:
        validate(as_mapping(parse(text, file="s.yaml"), file="s.yaml"), Scenario)
    except ScenarioError as error:
        assert error.line is not None
        assert error.line >= 1
        assert all(line for line in error.lines())


def test_the_mutated_scenario_is_valid_itself() -> None:
    assert "in-house-v100-criteo" in list_scenarios()
    assert validate(as_mapping(parse(VALID, file="s.yaml"), file="s.yaml"), Scenario) == load_scenario("in-house-v100-criteo")
