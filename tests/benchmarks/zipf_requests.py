"""Requests as a parameter server gets them: unique keys, drawn from Zipf's law over all rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persia.data.zipf import make_zipf


def zipf_requests(*, rows: int, exponent: float, size: int, count: int, seed: int, unique: bool = True) -> list[npt.NDArray[np.uint64]]:
    """Return `count` requests of `size` keys, each once in a request, in the order in which they were first drawn.

    With `unique` false they are as they were drawn, popular ones many times.  A key's popularity has nothing to do with its
    number: IDs are spread over 0..rows-1 by a random permutation.
    """
    generator = np.random.default_rng(seed)
    law = make_zipf(rows, exponent)
    keys = generator.permutation(rows).astype(np.uint64)
    requests = []
    for _ in range(count):
        if not unique:
            requests.append(keys[law.draw(generator, size)])
            continue
        drawn = np.empty(0, np.int64)
        first = np.empty(0, np.int64)
        while len(first) < size:
            drawn = np.concatenate([drawn, law.draw(generator, 2 * size)])
            first = np.unique(drawn, return_index=True)[1]
        requests.append(keys[drawn[np.sort(first)[:size]]])
    return requests
