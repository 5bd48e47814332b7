"""Which points are not dominated? Fronts in any number of objectives, the knee, and the exact hypervolume of two.

Pure NumPy, nothing of the package. Conventions: objectives are minimised unless a direction says otherwise; points with a
nan are never on a front; of equal points all are kept, except on a two-dimensional ``front``, which keeps the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mask (n,) of the rows of ``points`` (n, d), all minimised, that no other row dominates.

    A row dominates another if it is nowhere larger and somewhere smaller. Rows with nan are False.

    >>> non_dominated([[1, 3], [2, 2], [3, 3], [3, 1]]).tolist()
    [True, True, False, True]
    """
    values = np.asarray(points, dtype=float)
    mask = np.zeros(len(values), dtype=bool)
    alive = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = alive[np.lexsort(values[alive].T[::-1])]
    kept: list[int] = []
    for i in order:
        front_values = values[kept]
        below = (front_values <= values[i]).all(axis=1) & (front_values < values[i]).any(axis=1)
        if not below.any():
            kept.append(int(i))
    mask[kept] = True
    return mask


def _signs(better_x: str, better_y: str) -> tuple[float, float]:
    for name in (better_x, better_y):
        if name not in ("lower", "higher"):
            raise ValueError(f"direction — found {name!r}, allowed 'lower' or 'higher'")
    return (1.0 if better_x == "lower" else -1.0), (1.0 if better_y == "lower" else -1.0)


def front(x: ArrayLike, y: ArrayLike, better_x: str, better_y: str) -> NDArray[np.int64]:
    """Indices of the non-dominated points of two objectives, in order of increasing ``x``; O(n log n).

    ``better_x``, ``better_y``: "lower" or "higher". Raises ValueError for other words.

    >>> front([1, 2, 3, 2], [5, 4, 6, 9], "higher", "lower").tolist()
    [1, 2]
    """
    sign_x, sign_y = _signs(better_x, better_y)
    a, b = sign_x * np.asarray(x, dtype=float).ravel(), sign_y * np.asarray(y, dtype=float).ravel()
    alive = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
    order = alive[np.lexsort((b[alive], a[alive]))]
    best = np.minimum.accumulate(b[order])
    first = np.concatenate(([True], b[order][1:] < best[:-1])) if len(order) else np.zeros(0, dtype=bool)
    chosen = order[first]
    return chosen if sign_x > 0 else chosen[::-1]


def knee(x: ArrayLike, y: ArrayLike) -> int | None:
    """Index of the point farthest from the straight line between the ends of a front, both axes scaled to 0..1 between the ends.

    Rule: greatest distance on either side of the chord. None for fewer than three points or a front without extent.

    >>> knee([0, 1, 2, 10], [10, 2, 1, 0])
    1
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) < 3 or a[-1] == a[0] or b[-1] == b[0]:
        return None
    distance = np.abs((a - a[0]) / (a[-1] - a[0]) - (b - b[0]) / (b[-1] - b[0]))
    return int(np.argmax(distance))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Exact area dominated by ``points`` (n, 2), both minimised, up to ``reference`` (2,). Points beyond it count nothing.

    >>> hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4])
    6.0
    """
    values, limit = np.asarray(points, dtype=float).reshape(-1, 2), np.asarray(reference, dtype=float)
    values = values[(values < limit).all(axis=1)]
    values = values[front(values[:, 0], values[:, 1], "lower", "lower")]
    if not len(values):
        return 0.0
    right = np.append(values[1:, 0], limit[0])
    return float(np.sum((right - values[:, 0]) * (limit[1] - values[:, 1])))
