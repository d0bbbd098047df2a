"""A shrunk machine against its prediction: `python tests/benchmarks/shrunk.py [--profile FILE] [--only quota|link]`.

* quota: the parameter servers run in a control group that gives them a fraction of a core;
* link: the parameter servers run in a network namespace of their own, behind a cable whose rate `tc` limits.

The simulator is told the quota or the rate, and the machine's pace: with a quota as `persia validate` tells it, by its probe and by
references between runs; behind a slow link, which decides by itself, by the probe.  Prints measured and simulated samples/s and the
signed error.  Needs root, control groups and iproute2; what is not permitted here is skipped, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.commands.drift import Drift  # noqa: E402
from persia.commands.simulate import resolved_yaml  # noqa: E402
from persia.commands.validation import Limits, Setting, validate_cases  # noqa: E402
from persia.readings import Readings  # noqa: E402
from persia.runtime.coordinator import Options  # noqa: E402
from persia.runtime.probe import Probe  # noqa: E402
from persia.scenario import Scenario  # noqa: E402
from simulator.calibration.store import default_profile_path  # noqa: E402
from simulator.run import simulate  # noqa: E402
from simulator.validation.cases import Case  # noqa: E402
from simulator.validation.predict import at_pace, predict_at_pace  # noqa: E402

CASE = {
    "schedule.mode": "hybrid",
    "cluster.tiers.nn_worker.processes_per_machine": "2",
    "cluster.tiers.parameter_server.processes_per_machine": "1",
    "cluster.tiers.embedding_worker.processes_per_machine": "1",
    "workload.batch_size": "512",
    "model.features[0].count": "26",
    "model.features[0].dim": "32",
    "model.features[0].ids_per_sample": "10",
    "schedule.staleness_permits": "4",
    "schedule.precision.server_worker": "fp32",
    "schedule.precision.worker_rank": "fp16",
}
QUOTAS_CORES = (0.1, 0.2, 0.4)
RATES_MBIT = (100, 200, 400)
SECONDS = 10.0
HELD_OUT = "workload.data.held_out_samples=256"


class Skipped(Exception):
    """What is asked for is not permitted here."""


def scenario_of(profile: Path, *overrides: str) -> Scenario:
    return Case(name="shrunk", settings=CASE).scenario([f"simulation.profile={profile}", HELD_OUT, *overrides])


def predicted(scenario: Scenario, readings: Readings | None = None) -> float:
    return simulate(at_pace(scenario, readings), steps=400).throughput.samples_per_s.mean


def sized(scenario: Scenario, samples_per_s: float) -> Scenario:
    """Return the scenario with as many samples as train in `SECONDS`, at least 60 steps."""
    step = scenario.workload.batch_size * scenario.ranks
    steps = max(60, round(samples_per_s * SECONDS / step))
    return scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"samples": steps * step})})


def train(words: Sequence[str], file: Path, folder: Path, *more: str) -> tuple[float, Readings]:
    """Train for real; return samples/s, and what the probe told of the machine."""
    command = [*words, sys.executable, "-m", "persia", "train", str(file), "--json", "--out", str(folder / "run"), *more]
    began_s = time.time()
    with Probe() as probe:
        done = subprocess.run(command, cwd=folder, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(json.loads(done.stdout)["throughput"]["samples_per_s"]["mean"]), probe.mean(began_s, time.time())


@contextmanager
def control_group(quota_cores: float) -> Iterator[Path]:
    """Give a control group of this quota; raises Skipped."""
    first = Path("/sys/fs/cgroup/cpu")
    root = first if first.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"persia-shrunk-{os.getpid()}"
    try:
        group.mkdir()
        if first.is_dir():
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(round(quota_cores * 100_000)))
        else:
            (group / "cpu.max").write_text(f"{round(quota_cores * 100_000)} 100000")
    except OSError as error:
        raise Skipped(f"no control group can be made here: {error}") from error
    try:
        yield group
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


@contextmanager
def servers_in(group: Path) -> Iterator[threading.Event]:
    """Put every parameter server that appears while the event is set into the group."""
    over, running = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/comm") if running.is_set() else ():
                try:
                    if path.read_text(encoding="utf-8").startswith("server-"):
                        (group / "cgroup.procs").write_text(path.parent.name)
                except OSError:
                    continue

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    try:
        yield running
    finally:
        over.set()
        looker.join()


def with_quota(profile: Path, quota_cores: float) -> tuple[float, float]:
    """Return measured and simulated samples/s with servers of so many cores each; those of references have no quota."""
    settings = {**CASE, "cluster.tiers.parameter_server.cpu_quota": str(quota_cores)}
    limits = Limits(seconds=SECONDS, repeats=2)
    setting = Setting(overrides=[HELD_OUT], profile=str(profile), options=Options(device="cpu", save=False), limits=limits)
    with control_group(quota_cores) as group, servers_in(group) as running:

        def show(name: str, said: str, fraction: float) -> None:
            if said.startswith("run"):
                running.set()

        found = validate_cases(
            [Case(name="shrunk", settings=settings)],
            setting,
            kind="scenarios",
            machine={},
            seed=None,
            show=show,
            keep=lambda validation: running.clear(),
        )
    drift = Drift.of(found.references, str(profile))
    if drift is None:
        raise Skipped("the profile was not calibrated")
    (case,) = predict_at_pace(found.cases, lambda case: setting.scenario(Case(name=case.name, settings=case.settings)), drift.slower)
    if case.worlds is None:
        raise RuntimeError(case.failure)
    measured, simulated = (world.samples_per_s.mean for world in case.worlds)
    return measured, simulated


@contextmanager
def cable(rate_mbit: int) -> Iterator[tuple[str, str]]:
    """Give two namespaces joined by a cable of this rate in each direction; their addresses are 10.214.9.1 and .2."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        raise Skipped("network namespaces and tc need root and iproute2")
    names = (f"persia-{os.getpid()}-a", f"persia-{os.getpid()}-b")
    with ExitStack() as cleanup:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                raise Skipped("no right to make network namespaces here")
            cleanup.callback(subprocess.run, ["ip", "netns", "delete", name])
        made = subprocess.run(["ip", "link", "add", "pa", "netns", names[0], "type", "veth", "peer", "name", "pb", "netns", names[1]])
        if made.returncode:
            raise Skipped("no virtual ethernet here")
        for place, (name, end) in enumerate(zip(names, ("pa", "pb"), strict=True)):
            for words in (
                ["ip", "-n", name, "addr", "add", f"10.214.9.{place + 1}/24", "dev", end],
                ["ip", "-n", name, "link", "set", end, "up"],
                ["ip", "-n", name, "link", "set", "lo", "up"],
            ):
                subprocess.run(words, check=True)
            limit = [
                "tc",
                "-n",
                name,
                "qdisc",
                "add",
                "dev",
                end,
                "root",
                "tbf",
                "rate",
                f"{rate_mbit}mbit",
                "burst",
                "256kb",
                "latency",
                "1s",
            ]
            if subprocess.run(limit, capture_output=True).returncode:
                raise Skipped("tc cannot limit a rate here")
        yield names


def with_rate(profile: Path, rate_mbit: int) -> tuple[float, float]:
    """Return measured and simulated samples/s with servers behind a link of this rate."""
    link = f"cluster.network.links=[{{from: embedding_worker, to: parameter_server, bandwidth: {rate_mbit}Mbps}}]"
    scenario = scenario_of(profile, link)
    simulated = predicted(scenario)
    with tempfile.TemporaryDirectory() as place, cable(rate_mbit) as (here, there):
        folder = Path(place)
        file = folder / "scenario.yaml"
        file.write_text(resolved_yaml(sized(scenario, simulated)), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        meet = f"10.214.9.1:{port}"
        words = [
            "ip",
            "netns",
            "exec",
            there,
            sys.executable,
            "-m",
            "persia",
            "node",
            str(file),
            "--role",
            "parameter-server",
            "--index",
            "0",
        ]
        server = subprocess.Popen(
            [*words, "--rendezvous", meet, "--bind", "10.214.9.2", "--out", str(folder / "node")],
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stderr=subprocess.DEVNULL,
        )
        try:
            more = ("--rendezvous", meet, "--bind", "10.214.9.1", "--elsewhere", "parameter-server:0")
            measured, readings = train(("ip", "netns", "exec", here), file, folder, *more)
            return measured, predicted(scenario, readings)
        finally:
            server.kill()
            server.wait()


def main() -> None:
    """Measure and predict each shrinkage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, default=default_profile_path())
    parser.add_argument("--only", choices=["quota", "link"])
    options = parser.parse_args()
    kinds = {"quota": (with_quota, QUOTAS_CORES, "cores"), "link": (with_rate, RATES_MBIT, "Mbit/s")}
    print(f"{'shrunk':<20}{'measured':>12}{'simulated':>12}{'error':>9}")
    for kind, (measure, values, unit) in kinds.items():
        if options.only not in (None, kind):
            continue
        for value in values:
            try:
                measured, simulated = measure(options.profile.resolve(), value)
            except Skipped as reason:
                print(f"{kind} {value} {unit}: skipped, {reason}")
                continue
            print(
                f"{kind + f' {value:g} ' + unit:<20}{measured:>12,.0f}{simulated:>12,.0f}{100 * (simulated / measured - 1):>+8.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
