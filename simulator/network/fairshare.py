"""Max-min fair rates: the share that every flow gets where flows meet on links.

Shapes: F flows, H hops (longest path), L links. A path row names link numbers and is padded with L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.arrays import FloatArray, IntArray

TOLERANCE = 1e-12


def pad_paths(paths: Sequence[Sequence[int]], links: int) -> IntArray:
    """Return paths as a matrix [F, H] of link numbers, padded with `links`."""
    hops = max((len(path) for path in paths), default=0)
    matrix: IntArray = np.full((len(paths), max(1, hops)), links, dtype=np.int64)
    for row, path in zip(matrix, paths, strict=True):
        row[: len(path)] = path
    return matrix


def max_min_rates(paths: IntArray, capacity: FloatArray) -> FloatArray:
    """Return the max-min fair rate of each flow [F], in the unit of `capacity` [L]; a flow without links gets infinity.

    Progressive filling (Bertsekas and Gallager, "Data Networks", 2nd edition, section 6.5.2), many links a round: a link
    whose equal share of what is left is no larger than that of any other link its flows cross is a bottleneck whatever
    happens elsewhere, because shares only grow as flows are fixed. So all such links are filled at once, and the rounds
    are as many as bottlenecks depend on one another, not as there are links.
    """
    links = len(capacity)
    rates: FloatArray = np.full(len(paths), np.inf)
    active = np.nonzero((paths < links).any(axis=1))[0]
    left = np.append(capacity, np.inf)  # the padding is a link without limit
    while len(active):
        rows = paths[active]
        flat = rows.ravel()
        flows = np.bincount(flat, minlength=links + 1)
        share = np.full(links + 1, np.inf)
        np.divide(left, flows, out=share, where=flows > 0)
        share[links] = np.inf
        least = share[rows].min(axis=1)  # of each flow, over its links
        least_on_link = np.full(links + 1, np.inf)
        np.minimum.at(least_on_link, flat, np.repeat(least, rows.shape[1]))
        bottleneck = (flows > 0) & (share <= least_on_link * (1.0 + TOLERANCE))
        bottleneck[links] = False
        fixed = bottleneck[rows].any(axis=1)
        rates[active[fixed]] = least[fixed]
        left -= np.bincount(rows[fixed].ravel(), weights=np.repeat(least[fixed], rows.shape[1]), minlength=links + 1)
        np.maximum(left, 0.0, out=left)
        left[links] = np.inf
        active = active[~fixed]
    return rates


def affected_flows(paths: IntArray, links: int, changed: IntArray) -> IntArray:
    """Return the rows of the flows that share a link, directly or through others, with the `changed` links.

    Only their rates can change when flows come or go on those links: the others are in other components.
    """
    reached = np.zeros(links + 1, dtype=np.bool_)
    reached[changed] = True
    known = -1
    while True:
        reached[links] = False
        hit = reached[paths].any(axis=1)
        count = int(hit.sum())
        if count == known:
            return np.nonzero(hit)[0].astype(np.int64)
        known = count
        reached[paths[hit].ravel()] = True
