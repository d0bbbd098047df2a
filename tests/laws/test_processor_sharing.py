"""A shared processor against what theory says of it."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from simulator.engine import HeapEngine
from simulator.processor import PERIOD_S, TICK_S, Job, Processor, Thread


def _ends(cores: float, works: list[float], slowdown: float = 1.0) -> list[float]:
    engine = HeapEngine()
    processor = Processor(engine, cores)
    ends: list[float] = []
    for work_s in works:
        processor.run(Thread(processor.group(), slowdown), Job(work_s, lambda: ends.append(engine.now_s)))
    engine.run()
    return ends


def test_fewer_threads_than_cores_do_not_feel_each_other() -> None:
    assert _ends(4.0, [1.0, 2.0, 3.0]) == pytest.approx([1.0, 2.0, 3.0])


def test_threads_of_a_core_share_it_equally_until_one_ends() -> None:
    assert _ends(1.0, [1.0, 1.5]) == pytest.approx([2.0, 2.5], abs=3 * TICK_S)


def test_threads_that_do_not_divide_evenly_among_cores_take_turns_at_having_one_to_themselves() -> None:
    assert _ends(2.0, [2.0, 2.0, 2.0]) == pytest.approx([3.0, 3.0, 3.0], abs=0.5)
    assert _ends(2.0, [2.0] * 5) == pytest.approx([5.0] * 5, abs=0.5)


def test_an_idle_core_takes_a_thread_that_waits_at_the_next_tick() -> None:
    # Three on two cores: the first core has two. When the second's only thread ends, one of the first's comes over.
    works = [20.0 * TICK_S, 10.0 * TICK_S, 20.0 * TICK_S]
    assert _ends(2.0, works) == pytest.approx([10.0 * TICK_S, 25.0 * TICK_S, 25.0 * TICK_S], abs=2 * TICK_S)
    # Before the first tick nobody comes over: the second core idles while a thread waits at the first.
    third_s = TICK_S / 3.0
    assert _ends(2.0, [third_s] * 3) == pytest.approx([third_s, third_s, 2.0 * third_s])


def test_a_thread_that_wakes_goes_first_unless_another_is_due_before_it_or_it_has_had_more_than_its_share() -> None:
    engine = HeapEngine()
    processor = Processor(engine, 1.0)
    hog, modest, early, greedy = (Thread(processor.group()) for _ in range(4))
    ends: dict[str, float] = {}

    def note(name: str) -> None:
        ends[name] = engine.now_s / TICK_S

    processor.run(hog, Job(1.0, note, ("hog",)))
    for at, thread, work, name in (
        (10.5, modest, 0.1, "modest"),
        (20.5, greedy, 0.2, "greedy"),
        (20.8, greedy, 0.01, "again"),
        (30.1, early, 0.1, "early"),
        (40.1, early, 0.1, "owed"),
    ):
        engine.call_later(at * TICK_S, processor.run, thread, Job(work * TICK_S, note, (name,)))
    engine.run()
    assert ends["modest"] == pytest.approx(10.6)
    assert ends["greedy"] == pytest.approx(20.7)
    assert ends["again"] == pytest.approx(21.01)  # until the other has caught up, which shows at a tick
    assert ends["early"] == pytest.approx(31.1)  # behind the tick the other has a slice before it
    assert ends["owed"] == pytest.approx(40.2)  # it has waited, and has not had its share yet


@pytest.mark.parametrize(
    ("hogs", "run_ms", "gap_ms", "waits_ms"),
    [(1, 0.3, 15, 0.30), (2, 0.3, 3, 0.66), (2, 0.3, 15, 0.66), (2, 1, 3, 1.42), (2, 1, 15, 1.91), (3, 0.3, 15, 0.98), (3, 1, 15, 2.97)],
)
def test_a_thread_waits_as_long_as_on_a_real_machine(
    hogs: int, run_ms: float, gap_ms: float, waits_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.18, 250 Hz: one core, `hogs` threads that never sleep, and one that sleeps, wakes and works (waking.c, 2026-11)."""
    monkeypatch.setattr("simulator.processor._SLICE_S", 0.0014)  # of two cores, of which only one may be used
    engine = HeapEngine()
    processor = Processor(engine, 1.0)
    generator = np.random.default_rng(2)
    thread, count_of, waits = Thread(processor.group()), 3000, []
    group = processor.group()
    for _ in range(hogs):
        processor.run(Thread(group), Job(1e6, lambda: None))

    def wake() -> None:
        at_s = engine.now_s
        processor.run(thread, Job(1e-9, lambda: waits.append(1e3 * (engine.now_s - at_s))))
        processor.run(thread, Job(1e-3 * run_ms, sleep))

    def sleep() -> None:
        if len(waits) == count_of:
            engine.stop()
        engine.call_later(1e-3 * gap_ms * (0.5 + float(generator.random())), wake)

    engine.call_later(0.0123, wake)
    engine.run()
    assert float(np.mean(waits)) == pytest.approx(waits_ms, rel=0.35)


def test_busy_neighbours_slow_work_down_by_its_factor() -> None:
    assert _ends(2.0, [1.0, 1.0], slowdown=1.25) == pytest.approx([1.25, 1.25])
    assert _ends(2.0, [1.0], slowdown=1.25) == pytest.approx([1.0])


def test_an_idle_core_takes_its_time_to_wake_and_a_busy_one_does_not() -> None:
    engine = HeapEngine()
    processor = Processor(engine, 1.0, wake_s=0.25)
    ends: list[float] = []
    thread = Thread(processor.group())
    for work_s in (1.0, 0.5):
        processor.run(thread, Job(work_s, lambda: ends.append(engine.now_s)))
    engine.run()
    assert ends == pytest.approx([1.25, 1.75])
    assert thread.busy_s == pytest.approx(1.5)


@pytest.mark.parametrize("service", ["exponential", "constant", "two-valued"])
def test_mean_response_of_one_shared_core_depends_on_the_load_alone(service: str) -> None:
    """M/G/1-PS is insensitive: the mean response is S / (1 - load), whatever the service times are (Kleinrock 1967)."""
    load, jobs, mean_s = 0.6, 20_000, 15.0 * TICK_S
    generator = np.random.default_rng(3)
    draws = {
        "exponential": generator.exponential(mean_s, jobs),
        "constant": np.full(jobs, mean_s),
        "two-valued": np.where(generator.random(jobs) < 0.9, 0.5, 5.5) * mean_s,
    }[service]
    engine = HeapEngine()
    processor = Processor(engine, 1.0)
    responses: list[float] = []
    for arrival_s, work_s in zip(np.cumsum(generator.exponential(mean_s / load, jobs)), draws, strict=True):
        at_s = float(arrival_s)

        def arrive(work_s: float = float(work_s), at_s: float = at_s) -> None:
            processor.run(Thread(processor.group()), Job(work_s, lambda: responses.append(engine.now_s - at_s)))

        engine.call_later(at_s, arrive)
    engine.run()
    assert float(np.mean(responses[jobs // 10 :])) == pytest.approx(mean_s / (1.0 - load), rel=0.06)


@pytest.mark.parametrize("quota_cores", [0.25, 0.5, 1.0])
def test_a_quota_is_what_a_group_gets_on_average_and_no_more_in_a_period(quota_cores: float) -> None:
    engine = HeapEngine()
    processor = Processor(engine, 2.0)
    group = processor.group(quota_cores)
    threads = [Thread(group) for _ in range(2)]
    done = count()
    for thread in threads:
        for _ in range(400):
            processor.run(thread, Job(0.01, lambda: next(done) and None))
    free = Thread(processor.group())
    processor.run(free, Job(1.0, lambda: None))
    engine.call_later(20 * PERIOD_S - 1e-6, engine.stop)
    engine.run()
    used_s = sum(thread.busy_s for thread in threads)
    assert used_s == pytest.approx(quota_cores * 20 * PERIOD_S, rel=0.02)
    assert free.busy_s == pytest.approx(1.0)


def test_work_is_conserved() -> None:
    generator = np.random.default_rng(1)
    works = generator.exponential(1.0, 50).tolist()
    ends = _ends(3.0, works)
    # Cores idle only when fewer threads than cores are left.
    assert max(ends) <= sum(works) / 3.0 + max(works)
    assert max(ends) >= sum(works) / 3.0


@pytest.mark.parametrize("cores", [0.0, -1.0])
def test_a_processor_has_cores(cores: float) -> None:
    with pytest.raises(ValueError, match="cores"):
        Processor(HeapEngine(), cores)


def _busy_core_and_a_sleeper(moves_on_wake: float) -> tuple[HeapEngine, Processor, Thread]:
    """Two cores; on the first one a thread works that never sleeps, on which another has slept since it ran there."""
    engine = HeapEngine()
    processor = Processor(engine, 2.0, moves_on_wake=moves_on_wake)
    hog, sleeper = Thread(processor.group()), Thread(processor.group())
    processor.run(sleeper, Job(0.1 * TICK_S, lambda: None))
    engine.call_later(0.5 * TICK_S, processor.run, hog, Job(100.0 * TICK_S, engine.stop))
    return engine, processor, sleeper


@pytest.mark.parametrize("moves_on_wake", [0.0, 0.3, 1.0])
def test_a_thread_wakes_on_its_last_core_though_another_idles_but_for_a_share_of_wakes(moves_on_wake: float) -> None:
    engine, processor, sleeper = _busy_core_and_a_sleeper(moves_on_wake)
    moved: list[int] = []

    def wake() -> None:
        sleeper.core = 0  # it sleeps where the other one works
        processor.run(sleeper, Job(0.01 * TICK_S, lambda: None))
        moved.append(sleeper.core)

    for number in range(2, 92, 2):
        engine.call_later((number + 0.2) * TICK_S, wake)
    engine.run()
    assert len(moved) == 45
    assert np.mean(moved) == pytest.approx(moves_on_wake, abs=0.03)


def _woken_on(here: int, there: int, *, rests: float = 0.0, wakes: tuple[int, int] = (0, 0), last: int = 1, worked: float = 0.01) -> int:
    """Return the core on which a thread goes on that slept on core 1 (or `last`) and is woken by one that runs on core 0.

    So many threads have worked on each core for 14 ticks, the waker included, before anything is balanced, those of core 1 until
    it has rested for so many ticks; waker and sleeper have woken so many different others before, and the sleeper has worked
    for so many ticks before all that.
    """
    engine = HeapEngine()
    processor = Processor(engine, 2.0, moves_on_wake=0.0)
    waker, sleeper = Thread(processor.group()), Thread(processor.group())
    places: list[int] = []

    def wake() -> None:
        waker.wakes, sleeper.wakes = wakes
        processor.run(sleeper, Job(0.01 * TICK_S, lambda: None))
        places.append(sleeper.core)
        engine.stop()

    def start(thread: Thread, core: int, ticks: float) -> None:
        thread.core, thread.ran_s = core, engine.now_s  # one that has run before goes on where it was
        processor.run(thread, Job(ticks * TICK_S, lambda: None))

    def begin() -> None:
        for core, number in ((0, here - 1), (1, there)):
            for _ in range(number):
                start(Thread(processor.group()), core, 1000.0 if core == 0 or not rests else (14.0 - rests) / there)
        waker.core, waker.ran_s = 0, engine.now_s
        processor.run(waker, Job(14.0 / here * TICK_S, wake))

    start(sleeper, last, worked)
    engine.call_later((int(worked) + 0.5) * TICK_S, begin)
    engine.run()
    return places[0]


@pytest.mark.parametrize(
    ("here", "there", "core"),
    [(1, 3, 0), (1, 1, 0), (2, 1, 1), (2, 3, 0), (1, 0, 1)],  # at equal loads its waker's core has the advantage
)
def test_a_thread_goes_to_the_core_that_wakes_it_where_that_is_less_loaded(here: int, there: int, core: int) -> None:
    assert _woken_on(here, there) == core


@pytest.mark.parametrize(("rests", "core"), [(2.0, 0), (12.0, 1)])
def test_load_is_forgotten_in_some_ticks_so_a_core_that_has_idled_for_long_keeps_its_threads(rests: float, core: int) -> None:
    assert _woken_on(1, 3, rests=rests) == core


def test_a_threads_own_load_is_taken_once_from_the_core_it_leaves() -> None:
    """That core has 1.09 beside the thread's 0.27, the waker's 0.70: 0.97 is less than 1.08 times 1.09, but not than 1.08 times 0.82."""
    assert _woken_on(1, 2, rests=2.0, worked=32.0) == 0


def test_a_thread_that_its_own_core_wakes_stays() -> None:
    assert _woken_on(1, 3, last=0) == 0


@pytest.mark.parametrize(("wakes", "core"), [((2, 2), 0), ((3, 2), 1), ((1, 4), 1), ((9, 1), 0)])
def test_threads_do_not_gather_round_one_that_serves_many_unless_it_is_alone(wakes: tuple[int, int], core: int) -> None:
    assert _woken_on(2, 4, wakes=wakes) == core
    assert _woken_on(1, 4, wakes=wakes) == 0


def _share_taken(rested: float) -> float:
    """Return how often a core that falls idle takes a thread that waits at the other and ran last so many ticks ago."""
    engine = HeapEngine()
    processor = Processor(engine, 2.0, moves_on_wake=0.0)
    hog, waiter, brief = (Thread(processor.group()) for _ in range(3))
    places: list[int] = []

    def wake(thread: Thread, work: float, core: int) -> None:
        thread.core = core
        processor.run(thread, Job(work * TICK_S, lambda: None))

    def wake_waiter() -> None:
        waiter.core = 0
        processor.run(waiter, Job(0.01 * TICK_S, lambda: places.append(waiter.core)))

    for number in range(40):
        at = 2.0 * number + 0.6
        engine.call_later((at - rested - 0.01) * TICK_S, wake, waiter, 0.01, 0)
        engine.call_later(at * TICK_S, wake, hog, 0.3, 0)
        engine.call_later(at * TICK_S, wake, brief, 0.1, 1)
        engine.call_later((at + 0.02) * TICK_S, wake_waiter)
    engine.run()
    return float(np.mean(places))


def test_a_core_that_falls_idle_takes_a_thread_that_waits_now_and_then_but_none_that_has_just_run() -> None:
    assert _share_taken(rested=0.5) == pytest.approx(0.25, abs=0.03)
    assert _share_taken(rested=0.01) == 0.0
