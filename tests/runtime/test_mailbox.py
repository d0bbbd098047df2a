from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
zmq = pytest.importorskip("zmq")
pytest.importorskip("lz4")


from persia.runtime.transport import Kind, Mailbox, Message, Posted  # noqa: E402
from persia.runtime.transport.frames import ROLES  # noqa: E402
from tests.runtime.mailboxes import DTYPES, LONG_S, SHORT_S, Echo, mailbox, message_from  # noqa: E402
from tests.support import ROOT, persia_environment  # noqa: E402

# --- what is sent arrives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("compress",)], ids=["raw", "lz4"])
def test_two_processes_exchange_arrays_of_every_dtype(endpoints: Iterator[str], options: tuple[str, ...]) -> None:
    generator = np.random.default_rng(0)
    with mailbox(next(endpoints), compress=bool(options)) as box, Echo(next(endpoints), 1, *options) as echo:
        echo.greet(box)
        for number, side in enumerate((0, 3, 100, 700)):
            arrays = [generator.integers(0, 100, (side, side)).astype(dtype) for dtype in DTYPES]
            assert box.send("parameter_server", 1, Kind.ROWS, number, [*arrays, np.array(7.5)], extra=-number)
            other = message_from(box)
            assert (other.kind, other.role, other.index, other.number, other.extra) == (Kind.ROWS, "parameter_server", 1, number, -number)
            assert other.arrays[-1] == 7.5
            for array, sent in zip(other.arrays[:-1], arrays, strict=True):
                assert array.dtype == sent.dtype
                assert array.flags.aligned
                assert np.array_equal(array, sent)
        assert box.send("parameter_server", 1, Kind.STOP)
        assert echo.process.wait(LONG_S) == 0


def test_order_holds_and_nothing_is_lost_among_many(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box, Echo(next(endpoints)) as echo:
        echo.greet(box)
        numbers = iter(range(2000))
        for number in numbers:
            box.send("parameter_server", 0, Kind.ROWS, number, [np.full(number % 50, number)])
            if number >= 60:
                other = message_from(box)
                assert other.number == number - 60
                assert (other.arrays[0] == other.number).all()


def test_a_mailbox_may_write_to_itself_and_take_a_payload(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints), index=4) as box:
        box.connect("embedding_worker", 4, box.endpoint)
        assert box.send("embedding_worker", 4, Kind.STATS, 1, [np.arange(3)], payload={"lookups": 5})
        message = message_from(box)
        assert message.payload() == {"lookups": 5}
        assert message.arrays[0].tolist() == [0, 1, 2]
        assert message.index == 4


def test_tcp_over_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6")
    with mailbox("tcp://[::1]:0") as box:
        box.connect("embedding_worker", 0, box.endpoint)
        assert box.send("embedding_worker", 0, Kind.READY)
        assert message_from(box).kind == Kind.READY


# --- peers that are not there, slow or die ------------------------------------------------------------------------------


def test_an_unknown_peer_is_not_sent_to(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box:
        assert not box.send("loader", 0, Kind.CREDIT)
        assert box.unsent == 1


def test_an_absent_peer_gets_what_the_queue_holds_when_it_comes(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a", queue_messages=5) as box:
        box.connect("loader", 0, f"ipc://{folder}/b")
        assert [box.send("loader", 0, Kind.CREDIT, number) for number in range(7)] == [True] * 5 + [False] * 2
        assert box.unsent == 2
        with mailbox(f"ipc://{folder}/b", "loader") as late:
            assert [message_from(late).number for _ in range(5)] == [0, 1, 2, 3, 4]
            assert late.receive(SHORT_S) is None


def test_messages_to_a_peer_that_never_comes_do_not_hold_up_the_end(folder: Path) -> None:
    box = mailbox(f"ipc://{folder}/a")
    box.connect("loader", 0, f"ipc://{folder}/nobody")
    assert box.send("loader", 0, Kind.SAMPLES, 0, [np.zeros(1 << 20)])
    box.close()
    assert list(folder.iterdir()) == []


def test_a_receiver_that_does_not_read_pushes_back(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints), "loader", queue_messages=4) as slow, mailbox(next(endpoints), queue_messages=4) as box:
        box.connect("loader", 0, slow.endpoint)
        array = np.arange(1 << 18)
        sent, refused_in_a_row = [], 0
        while refused_in_a_row < 20:  # the queues of both sides and of the system between them are full
            number = len(sent) + box.unsent
            if box.send("loader", 0, Kind.POOLED, number, [array, array[:10]]):
                sent.append(number)
                refused_in_a_row = 0
            else:
                refused_in_a_row += 1
                time.sleep(0.01)
        assert len(sent) < 40
        for number in sent:
            message = message_from(slow)
            assert message.number == number
            assert np.array_equal(message.arrays[0], array)
        assert slow.receive(SHORT_S) is None
        assert box.send("loader", 0, Kind.POOLED, 0)


def test_a_killed_process_is_found_again_at_its_endpoint(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box:
        with Echo(next(endpoints)) as echo:
            echo.greet(box)
            echo.kill()
        for restart in range(2):
            box.send("parameter_server", 0, Kind.ASK_ROWS, restart)  # into the void, or kept for the next
            with Echo(echo.endpoint) as again:
                again.greet(box) if restart == 0 else greet_past_leftovers(box, again)
        assert box.refused == 0


def greet_past_leftovers(box: Mailbox, echo: Echo) -> None:
    """What was queued for a dead process reaches its successor, which has no address to answer to before HELLO."""
    assert box.send("parameter_server", 0, Kind.HELLO, payload={"endpoint": box.endpoint})
    assert message_from(box).kind == Kind.HELLO
    assert echo.process.poll() is None


def test_a_peer_that_moved_is_reached_at_its_new_address(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box, mailbox(next(endpoints), "loader") as new:
        with mailbox(next(endpoints), "loader") as old:
            box.connect("loader", 0, old.endpoint)
            assert box.send("loader", 0, Kind.CREDIT, 1)
            assert message_from(old).number == 1
        box.connect("loader", 0, new.endpoint)
        box.connect("loader", 0, new.endpoint)
        assert box.send("loader", 0, Kind.CREDIT, 2)
        assert message_from(new).number == 2


def test_a_sender_killed_in_the_middle_of_a_message(endpoints: Iterator[str]) -> None:
    program = """
import sys, numpy as np
from persia.runtime.transport import Kind, Mailbox
mailbox = Mailbox(endpoint=sys.argv[1], role="loader", index=0, token=bytes(range(16)))
mailbox.connect("embedding_worker", 0, sys.argv[2])
for number in range(20):
    mailbox.send("embedding_worker", 0, Kind.FEATURES, number, [np.full(1 << 19, number)] * 3)
print("sending", flush=True)
mailbox.receive(30.0)
"""
    with mailbox(next(endpoints), queue_messages=100) as box:
        arguments = [sys.executable, "-c", program, next(endpoints), box.endpoint]
        with subprocess.Popen(arguments, cwd=ROOT, env=persia_environment(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        box.connect("embedding_worker", 0, box.endpoint)
        while (message := message_from(box)).kind == Kind.FEATURES:  # those that were complete, whole; none of them more
            assert all((array == message.number).all() for array in message.arrays)
            box.send("embedding_worker", 0, Kind.READY)
        assert message.kind == Kind.READY
        assert box.refused == 0


def test_an_address_that_leads_nowhere_is_no_error(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a") as box:
        box.connect("loader", 0, "tcp://not an address:80")
        assert not box.send("loader", 0, Kind.CREDIT)
        assert not box.send("loader", 0, Kind.CREDIT)
        assert (box.unsent, box.refusals) == (2, {"address": 1})


# --- posting, threads, ends ---------------------------------------------------------------------------------------------


def test_a_post_wakes_a_receive(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a") as box:
        threads = [threading.Thread(target=box.post, args=(item,)) for item in ("done", None, 0)]
        for thread in threads:
            thread.start()
        items = {received.item for received in (box.receive(LONG_S) for _ in threads) if isinstance(received, Posted)}
        assert items == {"done", None, 0}
        assert box.receive(SHORT_S) is None
        waiter = threading.Timer(0.05, box.post, ["late"])
        waiter.start()
        assert box.receive() == Posted("late")
        waiter.join()


def test_posts_of_many_threads_arrive_once_and_in_each_threads_order(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a") as box:
        threads = [threading.Thread(target=lambda n=n: [box.post((n, i)) for i in range(500)]) for n in range(4)]
        for thread in threads:
            thread.start()
        items = [received.item for received in (box.receive(LONG_S) for _ in range(2000)) if isinstance(received, Posted)]
        for thread in threads:
            thread.join()
        assert box.receive(0) is None
        for n in range(4):
            assert [i for of, i in items if of == n] == list(range(500))


def test_messages_and_posts_take_turns(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a") as box:
        box.connect("embedding_worker", 0, box.endpoint)
        for number in range(20):
            box.send("embedding_worker", 0, Kind.READY, number)
        message_from(box)
        time.sleep(SHORT_S)  # until all are there
        for number in range(10):
            box.post(number)
        kinds = [type(box.receive(LONG_S)) for _ in range(20)]
        assert kinds == [Posted, Message] * 10


def test_a_signal_is_heard_while_a_process_waits(endpoints: Iterator[str]) -> None:
    program = """
import signal, sys
from persia.runtime.transport import Mailbox
with Mailbox(endpoint=sys.argv[1], role="loader", index=0, token=bytes(16)) as box:
    signal.signal(signal.SIGTERM, lambda number, frame: box.post("terminate"))
    print("waits", flush=True)
    try:
        print(box.receive(), flush=True)
        box.receive()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    arguments = [sys.executable, "-c", program, next(endpoints)]
    with subprocess.Popen(arguments, cwd=ROOT, env=persia_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "Posted(item='terminate')\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(LONG_S) == 0


def test_another_thread_may_only_post(folder: Path) -> None:
    faults: list[RuntimeError] = []
    with mailbox(f"ipc://{folder}/a") as box:
        assert box.receive(0) is None

        def misuse() -> None:
            for use in (lambda: box.receive(0), lambda: box.send("loader", 0, Kind.CREDIT), lambda: box.connect("loader", 0, "ipc://x")):
                try:
                    use()
                except RuntimeError as fault:
                    faults.append(fault)

        thread = threading.Thread(target=misuse)
        thread.start()
        thread.join()
    assert len(faults) == 3


def test_nothing_is_left_behind(endpoints: Iterator[str], folder: Path) -> None:
    threads, files = threading.active_count(), set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        box = mailbox(next(endpoints))
        box.connect("embedding_worker", 0, box.endpoint)
        box.send("embedding_worker", 0, Kind.ROWS, 0, [np.zeros(1 << 20)])
        message_from(box)
        box.close()
        box.close()
        box.post("too late")
    assert list(folder.iterdir()) == []
    assert threading.active_count() <= threads + 1  # pyzmq keeps one thread, which frees what was sent without a copy
    assert len(set(Path("/proc/self/fd").iterdir()) - files) <= 8  # and the descriptors of its context


def test_pending_messages_are_delivered_by_a_close(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box:
        sender = mailbox(next(endpoints), "loader")
        sender.connect("embedding_worker", 0, box.endpoint)
        for number in range(20):
            assert sender.send("embedding_worker", 0, Kind.SAMPLES, number, [np.zeros(10_000)])
        sender.close()
        assert [message_from(box).number for _ in range(20)] == list(range(20))


def test_an_endpoint_where_another_listens_is_refused(folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a") as box:
        with pytest.raises(OSError, match="another process listens"):
            mailbox(f"ipc://{folder}/a")
        box.connect("loader", 0, box.endpoint)
        assert box.send("loader", 0, Kind.READY)
        assert message_from(box).kind == Kind.READY
    with mailbox("tcp://127.0.0.1:0") as box, pytest.raises(OSError, match=r"in use"):
        mailbox(box.endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "ipc://",
        "ipc://*",
        "ipc://@abstract",
        "ipc:///" + "x" * 107,
        "ipc:///" + "é" * 60,
        "tcp://",
        "tcp://host",
        "tcp://host:",
        "tcp://:80",
        "tcp://host:65536",
        "tcp://host:-1",
        "inproc://x",
        "udp://127.0.0.1:0",
        "/a/path",
    ],
)
def test_what_is_no_endpoint_is_a_value_error(endpoint: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no endpoint|shorter folder"):
        mailbox(endpoint)
    with mailbox(f"ipc://{folder}/a") as box, pytest.raises(ValueError, match=r"no endpoint|shorter folder"):
        box.connect("loader", 0, endpoint)


def test_the_longest_path_works(folder: Path) -> None:
    path = f"{folder}/".ljust(107, "x")
    with mailbox(f"ipc://{path}") as box:
        box.connect("loader", 0, box.endpoint)
        assert box.send("loader", 0, Kind.READY)
        assert message_from(box).kind == Kind.READY


@pytest.mark.parametrize("options", [{"role": "boss"}, {"index": -1}, {"token": b"short"}, {"limit_bytes": 0}, {"queue_messages": 0}])
def test_what_is_no_mailbox_is_a_value_error(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ValueError, match="no mailbox"):
        mailbox(f"ipc://{folder}/a", **options)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error_and_leaves_no_thread(folder: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(OSError, match="no/such"):
        mailbox(f"ipc://{folder}/no/such/folder")
    assert threading.active_count() == threads


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_write(role: str, folder: Path) -> None:
    with mailbox(f"ipc://{folder}/a", role, 2) as box:
        box.connect(role, 2, box.endpoint)
        assert box.send(role, 2, Kind.HELLO)
        assert message_from(box).role == role
