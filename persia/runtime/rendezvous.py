"""Torch's store: where ranks meet, where processes of several hosts learn of the run and of each other's inboxes.

Imported only by who needs it, for it imports torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import torch
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from persia import __version__
from persia.runtime.session import Session

_LOOK_S = 0.05
_RANK_LOOK_S = 0.005
_PATIENCE = timedelta(minutes=10)  # for the other processes of a run to come up
_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface


class RendezvousError(RuntimeError):
    """The run cannot be found or joined: the message says where it was looked for and what to do."""


@contextmanager
def host_store(address: str, port: int) -> Iterator[str]:
    """Host the store while the block runs; yields HOST:PORT, for port 0 a free one.

    Raises:
        RendezvousError: the port is taken.
    """
    try:
        store = TCPStore(address, port, is_master=True, wait_for_workers=False)
    except (RuntimeError, ValueError) as error:
        raise RendezvousError(f"no rendezvous can be hosted at {address}:{port}: {_first_line(error)}. Choose another port.") from error
    yield f"{address}:{store.port}"
    del store


def open_store(address: str) -> TCPStore:
    """Return the store at HOST:PORT.

    Raises:
        RendezvousError: it is no such address, or nobody hosts a store there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RendezvousError(f"{address!r} is no HOST:PORT.")
    try:
        return TCPStore(host, int(port), is_master=False, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RendezvousError(
            f"no run is to be found at {address}: {_first_line(error)}. Start `persia train --rendezvous` first."
        ) from error


def ranks_store(session: Session, rank: int) -> Store:
    """Return the store where the ranks of an attempt meet: that of the rendezvous or, on one host, rank 0's, named in a file.

    Raises:
        RendezvousError: nobody hosts it.
    """
    if session.store is not None:
        return attempt_store(open_store(session.store), session)
    named = Path(session.state) / "ranks-store"
    if rank == 0:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        partial = named.with_suffix(".partial")
        partial.write_text(f"127.0.0.1:{store.port}", encoding="ascii")
        partial.rename(named)
        return store
    due_s = time.monotonic() + _PATIENCE.total_seconds()
    while not named.exists():
        if time.monotonic() > due_s:
            raise RendezvousError(f"rank 0 has not come within {_PATIENCE}.")
        time.sleep(_RANK_LOOK_S)
    return open_store(named.read_text(encoding="ascii"))


def attempt_store(store: Store, session: Session) -> PrefixStore:
    """Return the part of the store that belongs to one attempt."""
    return PrefixStore(Path(session.attempt).name, store)


def publish_session(address: str, session: Session, number: int, name: str) -> None:
    """Let processes elsewhere read the session of attempt `number` (from 1), scenario and all."""
    text = Path(session.scenario).read_text(encoding="utf-8")
    payload = {"persia": __version__, "name": name, "scenario": text, "session": asdict(session)}
    open_store(address).set(f"session-{number}", json.dumps(payload))


def fetch_session(address: str, number: int, folder: Path, bind: str, name: str) -> Session:
    """Wait for the session of attempt `number`; return it with this host's own folders and address.

    Raises:
        RendezvousError: nobody is there, nothing is published in time, or by another version of persia, or another scenario.
    """
    try:
        payload = json.loads(open_store(address).get(f"session-{number}"))
    except RuntimeError as error:
        raise RendezvousError(f"{address} publishes no run: {_first_line(error)}") from error
    if payload["persia"] != __version__:
        raise RendezvousError(f"the run at {address} is of persia {payload['persia']}, this is {__version__}. Install the same version.")
    if payload["name"] != name:
        raise RendezvousError(f"the run at {address} is of the scenario {payload['name']!r}, not {name!r}. Give the same scenario.")
    attempt = folder / "attempts" / f"{number:03d}"
    attempt.mkdir(parents=True, exist_ok=True)
    scenario = folder / "scenario.yaml"
    scenario.write_text(payload["scenario"], encoding="utf-8")
    session = Session.from_json(payload["session"])
    return replace(session, scenario=str(scenario), attempt=str(attempt), state=str(folder / "state"), store=address, bind=bind)


def exchange_endpoints(
    session: Session,
    role: str,
    index: int,
    endpoint: str,
    processes: Mapping[str, int],
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """Publish this process's inbox; return everyone's, once all are known; `meanwhile` is called now and then, and may raise.

    Raises:
        RendezvousError: somebody does not come in time.
    """
    assert session.store is not None
    store = attempt_store(open_store(session.store), session)
    store.set(f"{role}/{index}", endpoint)
    counts = {**processes, "coordinator": 1}
    missing = [f"{peer}/{number}" for peer, count in counts.items() for number in range(count)]
    due_s = time.monotonic() + _PATIENCE.total_seconds()
    while not store.check(missing):
        meanwhile()
        if time.monotonic() > due_s:
            absent = [name for name in missing if not store.check([name])]
            raise RendezvousError(f"not all processes of the run have come within {_PATIENCE}: {', '.join(absent)} are missing.")
        time.sleep(_LOOK_S)
    return {peer: [store.get(f"{peer}/{number}").decode() for number in range(count)] for peer, count in counts.items()}


def reduce_at(address: str) -> None:
    """Let gloo reach the other ranks by the interface of this host's address, not by what its host name resolves to.

    `GLOO_SOCKET_IFNAME`, where set, is left alone; so is gloo where no interface has the address.
    """
    name = interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """Return the network interface that has this IPv4 address or host name first; None where none has."""
    try:
        packed = socket.inet_aton(socket.gethostbyname(address))
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without an address
                continue
            own = answer[20:24]
            if own == packed or own[0] == packed[0] == 127:  # the loopback interface has all of 127.0.0.0/8
                return name
    return None


def cuda_devices() -> int:
    """Return how many CUDA devices torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
