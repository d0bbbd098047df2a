"""A run whose processes find each other over tcp: at two addresses, and in two network namespaces, which share nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.exits import ExitCode
from persia.runtime.coordinator import Outcome
from persia.runtime.plan import make_plan
from persia.runtime.rendezvous import interface_of
from tests.runtime.faults import Command, check_logs_replay, gone_within, state_folders, write_scenario
from tests.runtime.plain_torch import PlainTraining
from tests.runtime.runs import Run, scenario_of
from tests.runtime.test_equals_torch import assert_equals_plain

ELSEWHERE = ("parameter-server", "embedding-worker", "nn-worker")  # the second of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where processes are reached, and the words that start one there."""

    address: str
    within: tuple[str, ...] = ()


def two_addresses() -> tuple[Host, Host]:
    return Host(address="127.0.0.2"), Host(address="127.0.0.3")


def two_namespaces(cleanup: ExitStack) -> tuple[Host, Host]:
    """Two network namespaces with a cable between them; skips where they cannot be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"persia-{os.getpid()}-{end}" for end in "ab"]
    cable = [f"veth{os.getpid() % 1_000_000}{end}" for end in "ab"]
    hosts = [Host(address=f"10.213.7.{place + 1}", within=("ip", "netns", "exec", name)) for place, name in enumerate(names)]
    for name in names:
        if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
            pytest.skip("no right to make network namespaces here")
        cleanup.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
    ends = [part for end, name in zip(cable, names, strict=True) for part in ("name", end, "netns", name, "peer")][:-1]
    if subprocess.run(["ip", "link", "add", *ends[:4], "type", "veth", *ends[4:]], capture_output=True).returncode != 0:
        pytest.skip("no virtual ethernet here")
    for name, end, host in zip(names, cable, hosts, strict=True):
        for words in (["addr", "add", f"{host.address}/24", "dev", end], ["link", "set", end, "up"], ["link", "set", "lo", "up"]):
            subprocess.run(["ip", "-n", name, *words], check=True)
    return hosts[0], hosts[1]


@pytest.fixture(params=["addresses", "namespaces"])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    with ExitStack() as cleanup:
        yield two_addresses() if request.param == "addresses" else two_namespaces(cleanup)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_run_spans_two_hosts(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    scenario = scenario_of(0, "schedule.mode=sync", steps=20)
    path = write_scenario(scenario, tmp_path / "scenario.yaml")
    rendezvous = f"{here.address}:{29500 if here.within else free_port(here.address)}"
    meet = ("--rendezvous", rendezvous, "--bind")
    with ExitStack() as running:
        elsewhere = [word for role in ELSEWHERE for word in ("--elsewhere", f"{role}:1")]
        train = Command(tmp_path, path, "--out", tmp_path / "run", "--json", *meet, here.address, *elsewhere, within=here.within)
        running.enter_context(train)
        nodes = []
        for role in ELSEWHERE:
            (tmp_path / role).mkdir()
            words = (path, "--role", role, "--index", "1", "--out", tmp_path / role / "run", *meet, there.address)
            nodes.append(running.enter_context(Command(tmp_path / role, *words, verb="node", within=there.within)))
        assert train.end() == ExitCode.OK, train.complaint
        assert [node.end() for node in nodes] == [ExitCode.OK] * len(nodes), [node.complaint for node in nodes]
        gone_within([command.popen.pid for command in (train, *nodes)])
    assert json.loads(train.output)["samples"] == scenario.workload.samples
    run = Run(scenario=scenario, folder=tmp_path / "run", outcome=Outcome(plan=make_plan(scenario)))
    assert_equals_plain(run, PlainTraining(run.plan).train())
    for folder in (run.folder, *(tmp_path / role / "run" for role in ELSEWHERE)):
        assert check_logs_replay(folder / "attempts" / "001") > 0
        assert json.loads((folder / "run.json").read_text())["state"] == "complete"
    assert len(list(run.attempt.glob("logs/*"))) == sum(run.plan.processes().values()) - len(ELSEWHERE)
    assert not state_folders(train.popen.pid)


def test_interface_of_an_address() -> None:
    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    assert interface_of("127.0.0.3") == interface_of("localhost") == loopback
    assert interface_of("192.0.2.1") is None  # nobody's: for documentation
