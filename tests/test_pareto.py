"""Fronts, knee and hypervolume against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse import pareto

GRID = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


def brute(points):
    rows = [tuple(p) for p in points]
    return [not any(all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in rows) for p in rows]


@given(GRID)
@settings(max_examples=60, deadline=None)
def test_non_dominated_is_brute_force(points):
    assert pareto.non_dominated(points).tolist() == brute(points)


@given(GRID, st.sampled_from(["lower", "higher"]), st.sampled_from(["lower", "higher"]))
@settings(max_examples=60, deadline=None)
def test_front_is_brute_force_without_duplicates(points, better_x, better_y):
    x, y = np.array(points, dtype=float)[:, 0], np.array(points, dtype=float)[:, 1]
    sx, sy = (1 if better_x == "lower" else -1), (1 if better_y == "lower" else -1)
    expected = {(a, b) for (a, b), keep in zip(zip(x, y, strict=True), brute(zip(sx * x, sy * y, strict=True)), strict=True) if keep}
    got = pareto.front(x, y, better_x, better_y)
    assert [(x[i], y[i]) for i in got] == sorted(expected)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_hypervolume_counts_the_unit_squares(points):
    squares = sum(any(a <= i and b <= j for a, b in points) for i in range(7) for j in range(7))
    assert pareto.hypervolume(np.array(points).reshape(-1, 2), [7, 7]) == squares


def test_nan_is_never_on_a_front():
    assert pareto.non_dominated([[np.nan, 0], [1, 1]]).tolist() == [False, True]
    assert pareto.front([np.nan, 1.0], [0.0, 1.0], "lower", "lower").tolist() == [1]
    assert pareto.front([np.nan], [0.0], "lower", "lower").tolist() == []


def test_knee():
    assert pareto.knee([0, 1, 2, 3], [10, 1, 0.9, 0.8]) == 1
    assert pareto.knee([0, 1], [1, 0]) is None
    assert pareto.knee([0, 1, 2], [1, 1, 1]) is None


def test_direction_is_checked():
    with pytest.raises(ValueError, match="sideways"):
        pareto.front([1], [1], "sideways", "lower")
