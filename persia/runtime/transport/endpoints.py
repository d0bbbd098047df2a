"""Addresses of inboxes: `ipc://PATH` on one host, `tcp://ADDRESS:PORT` between hosts."""

from __future__ import annotations

import socket

_IPC_PATH_BYTES_MAX = 107  # what fits into a sockaddr_un


def ipc_path(endpoint: str) -> str:
    """Return the path of an ipc endpoint, "" for a tcp endpoint.

    Raises:
        ValueError: it is neither, or the path is too long.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest and rest[0] not in "*@":
        size_bytes = len(rest.encode())
        if size_bytes > _IPC_PATH_BYTES_MAX:
            raise ValueError(f"{endpoint}: a path of {size_bytes} bytes; sockets allow {_IPC_PATH_BYTES_MAX}: use a shorter folder")
        return rest
    address, _, port = rest.rpartition(":")
    if scheme == "tcp" and address and port.isascii() and port.isdigit() and int(port) < 1 << 16:
        return ""
    raise ValueError(f"{endpoint!r} is no endpoint: ipc://PATH or tcp://ADDRESS:PORT")


def somebody_listens(path: str) -> bool:
    """Return whether a process listens at a socket's path; the file of one that was killed stays, and is taken over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
