"""Where ranks meet, and which devices torch sees: what the coordinator needs of torch, and imports only when it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._C._distributed_c10d import TCPStore


@contextmanager
def host_store(address: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Host the store at which the ranks meet while the block runs; yields HOST:PORT, for port 0 a free one."""
    store = TCPStore(address, port, is_master=True, wait_for_workers=False)
    yield f"{address}:{store.port}"
    del store


def cuda_devices() -> int:
    """Return how many CUDA devices torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
