"""Numbers keep their units, intervals keep their width, labels say words."""

from __future__ import annotations

import math

import pytest

from reports import words
from simulator.result import Interval


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1_790_000, "1.79 M samples/s"),
        (999_999, "1.00 M samples/s"),
        (730_440, "730 k samples/s"),
        (12.34, "12.3 samples/s"),
        (0, "0 samples/s"),
    ],
)
def test_rate(value: float, said: str) -> None:
    assert words.rate(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.0732, "73.2 ms"), (1.0, "1.00 s"), (0.9999, "1.00 s"), (4.1e-6, "4.10 µs"), (3e-9, "0.00300 µs"), (0, "0 s")]
)
def test_seconds(value: float, said: str) -> None:
    assert words.seconds(value) == said


@pytest.mark.parametrize(
    ("gib", "said"), [(346_009, "372 TB"), (259_800, "279 TB"), (512, "550 GB"), (0.5, "537 MB"), (0, "0 GB"), (931.4, "1.00 TB")]
)
def test_sizes_are_decimal(gib: float, said: str) -> None:
    assert words.size(gib) == said


def test_size_pair_says_a_shared_unit_once() -> None:
    assert words.size_pair(259_800, 346_009) == "279 of 372 TB"
    assert words.size_pair(512, 5_276) == "550 GB of 5.67 TB"


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.0, "0 %"), (0.0004, "< 0.1 %"), (0.081, "8.1 %"), (0.0996, "10 %"), (0.884, "88 %"), (1, "100 %")]
)
def test_percent_never_rounds_something_to_nothing(fraction: float, said: str) -> None:
    assert words.percent(fraction) == said


@pytest.mark.parametrize(("usd", "said"), [(2918.4, "$2,918"), (99.4, "$99.40"), (99.6, "$100"), (None, "no price")])
def test_dollars(usd: float | None, said: str) -> None:
    assert words.dollars(usd) == said


@pytest.mark.parametrize("relative", [0.3, 0.03, 0.003, 0.0003])
def test_interval_has_digits_enough_to_show_its_width(relative: float) -> None:
    low, _, high, prefix = words.interval(Interval(mean=1.79e6, low=1.79e6 * (1 - relative), high=1.79e6 * (1 + relative))).split()
    assert prefix == "M"
    assert float(high) - float(low) == pytest.approx(2 * relative * 1.79, rel=0.35)


def test_interval_of_too_few_steps_is_said_not_drawn() -> None:
    endless = Interval(mean=1.0, low=0.0, high=math.inf)
    assert words.interval(endless) == "unknown: too few steps"
    assert words.percent(words.half_width(endless)) == "unknown"


@pytest.mark.parametrize(
    ("name", "said"),
    [("nn_worker", "NN workers"), ("nn_worker.hbm", "NN workers, GPU memory"), ("nic_tx", "outgoing network"),
     ("exposed all-reduce", "exposed all-reduce"), ("row_index", "row index"), ("cpu", "CPU")],
)  # fmt: skip
def test_labels(name: str, said: str) -> None:
    assert words.label(name) == said


def test_sentence() -> None:
    assert words.sentence("the model fits") == "The model fits."
    assert words.sentence("Done!") == "Done!"
    assert words.sentence("") == ""


def test_plural() -> None:
    assert [words.plural(number, "update") for number in (0, 1, 1.5, 163.4)] == ["0 updates", "1 update", "1.5 updates", "163 updates"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1e-05 s/row", "10.0 µs/row"),
        ("1.5e-05 s", "15.0 µs"),
        ("0.9 1", "0.9"),
        ("10000000000", "10,000,000,000"),
        ("32.0 Gbit/s", "32.0 Gbit/s"),
        ("4 GiB/process", "4 GiB/process"),
        ("2.5e+09 bytes/s", "2.50 G bytes/s"),
        ("rowwise-adagrad", "rowwise-adagrad"),
        ("{'count': 8, 'zone': None, 'hosted_on': 'nn_worker', 'nic_tier1': False}", "count 8, hosted_on nn_worker"),
        ("{not python}", "{not python}"),
    ],
)
def test_input_values_are_readable(text: str, said: str) -> None:
    assert words.quantity(text) == said


@pytest.mark.parametrize(("half", "said"), [(0.0034, "\u00b1 0.34 %"), (0.078, "\u00b1 7.8 %"), (math.inf, "unknown")])
def test_spread(half: float, said: str) -> None:
    assert words.spread(Interval(mean=100.0, low=100 - 100 * half, high=100 + 100 * half)) == said
