"""What a message costs: `python tests/benchmarks/bench_transport.py [--repeats 5]`.

Two processes, mailbox to mailbox beside bare sockets of pyzmq (the same header as bytes, arrays sent and received without
copies), over ipc and tcp, in turn; prints for each the medians over the repeats, and the best:
(a) microseconds of a round trip of 4 KB there and a bare header back;
(b) GB/s of 1 MB and 8 MB, one message at a time, each acknowledged by a bare header;
(c) GB/s of 1 MB with eight messages on their way, as a fan-out to servers has them.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.runtime.transport import Kind, Mailbox, Message  # noqa: E402 (the checkout need not be installed)

TOKEN = bytes(16)
CASES = (("4 KB", 4 << 10, 1, 2000), ("1 MB", 1 << 20, 1, 300), ("8 MB", 8 << 20, 1, 50), ("1 MB x 8", 1 << 20, 8, 300))


class Peer(Protocol):
    """One end: what it can do is send an array or a bare header, and wait for the next of either."""

    endpoint: str

    def connect(self, endpoint: str) -> None: ...
    def send(self, arrays: tuple[Any, ...]) -> bool: ...
    def receive(self) -> int: ...


class Ours:
    """A mailbox."""

    def __init__(self, endpoint: str) -> None:
        self.box = Mailbox(endpoint=endpoint, role="loader", index=0, token=TOKEN)
        self.endpoint = self.box.endpoint

    def connect(self, endpoint: str) -> None:
        self.box.connect("loader", 0, endpoint)

    def send(self, arrays: tuple[Any, ...]) -> bool:
        return self.box.send("loader", 0, Kind.ROWS, 1, arrays)

    def receive(self) -> int:
        """Return the received bytes, 0 for a bare header."""
        message = self.box.receive()
        assert isinstance(message, Message)
        return sum(array.nbytes for array in message.arrays)


class Bare:
    """Two sockets of pyzmq."""

    def __init__(self, endpoint: str) -> None:
        context = zmq.Context.instance()
        self.inbox, self.way = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        self.inbox.bind(endpoint)
        self.endpoint = self.inbox.last_endpoint.decode()

    def connect(self, endpoint: str) -> None:
        self.way.connect(endpoint)

    def send(self, arrays: tuple[Any, ...]) -> bool:
        header = bytes(48)
        if arrays:
            self.way.send(header, zmq.SNDMORE)
            self.way.send(arrays[0], copy=arrays[0].nbytes < 1 << 16)
        else:
            self.way.send(header)
        return True

    def receive(self) -> int:
        """Return the received bytes, 0 for a bare header."""
        frames = self.inbox.recv_multipart(copy=False)
        return np.frombuffer(frames[1], np.uint8).nbytes if len(frames) > 1 else 0


PEERS: dict[str, type[Ours] | type[Bare]] = {"mailbox": Ours, "bare zmq": Bare}


def serve(name: str, endpoint: str, other: str) -> None:
    """Acknowledge every array, until two bare headers come."""
    peer = PEERS[name](endpoint)
    peer.connect(other)
    print(peer.endpoint, flush=True)
    headers = 0
    while headers < 2:
        headers = headers + 1 if peer.receive() == 0 else 0
        peer.send(())


def seconds(peer: Peer, size_bytes: int, in_flight: int, messages: int) -> float:
    """Return the seconds that one message took."""
    array = np.ones(size_bytes, np.uint8)
    began_s = time.perf_counter()
    for number in range(messages):
        while not peer.send((array,)):
            time.sleep(1e-4)
        if number >= in_flight - 1:
            peer.receive()
    for _ in range(in_flight - 1):
        peer.receive()
    return (time.perf_counter() - began_s) / messages


def measure(name: str, scheme: str, folder: str) -> dict[str, float]:
    """Return each case's seconds per message, of one pair of processes."""
    here, there = ("tcp://127.0.0.1:*" if name == "bare zmq" else "tcp://127.0.0.1:0",) * 2
    if scheme == "ipc":
        here, there = f"ipc://{folder}/here", f"ipc://{folder}/there"
    peer = PEERS[name](here)
    arguments = [sys.executable, str(Path(__file__).resolve()), "--serve", name, there, peer.endpoint]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        peer.connect(process.stdout.readline().strip())
        seconds(peer, 4096, 1, 200)
        took_s = {case: seconds(peer, size_bytes, in_flight, messages) for case, size_bytes, in_flight, messages in CASES}
        for _ in range(2):
            peer.send(())
            peer.receive()
    return took_s


def main() -> None:
    """Measure all pairs in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    took_s: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(options.repeats):
        for scheme in ("ipc", "tcp"):
            for name in PEERS:
                with tempfile.TemporaryDirectory() as folder:
                    for case, each_s in measure(name, scheme, folder).items():
                        took_s.setdefault((scheme, name, case), []).append(each_s)
    for (scheme, name, case), values in took_s.items():
        size_bytes = next(size_bytes for label, size_bytes, *_ in CASES if label == case)
        middle, best = statistics.median(values), min(values)
        if case == "4 KB":
            print(f"{scheme}  {name:9} {case:9} {1e6 * middle:6.0f} us, best {1e6 * best:6.0f} us a round trip")
        else:
            print(f"{scheme}  {name:9} {case:9} {size_bytes / middle / 1e9:6.2f} GB/s, best {size_bytes / best / 1e9:6.2f} GB/s")


if __name__ == "__main__":
    main()
