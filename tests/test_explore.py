"""Does the archive keep the best chip of every cell, breed the same children for the same seed, and find a known optimum?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse.search import explore
from dse.search.explore import Archive, add, breed, leaders

COSTS = arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.sampled_from([1.0, 2.0, 3.0, 4.0, np.inf]))


@settings(max_examples=60)
@given(COSTS, st.integers(1, 3))
def test_leaders_are_the_cheapest_of_each_cell(costs, keep):
    expected = set()
    for cell in costs.T:
        ranked = sorted((cost, row) for row, cost in enumerate(cell) if np.isfinite(cost))
        expected |= {row for _, row in ranked[:keep]}
    assert leaders(costs, keep).tolist() == sorted(expected)


@settings(max_examples=40)
@given(st.lists(COSTS.filter(lambda c: c.shape[1] == 3), min_size=1, max_size=5))
def test_the_archive_keeps_the_best_of_each_cell_however_they_come(blocks):
    archive, seen, number = Archive.empty(1, 3), [], 0
    for costs in blocks:
        points = np.arange(number, number + len(costs), dtype=float)[:, None]
        number += len(costs)
        seen.append(costs)
        archive, entered = add(archive, points, costs, points[:, 0] * 2)
        assert set(points[entered, 0]) == set(archive.points[:, 0]) & set(points[:, 0])
    every = np.concatenate(seen)
    best = archive.costs.min(axis=0) if len(archive) else np.full(3, np.inf)
    np.testing.assert_array_equal(best, every.min(axis=0))
    np.testing.assert_array_equal(archive.costs, every[archive.points[:, 0].astype(int)])  # points, costs and times stay together
    np.testing.assert_array_equal(archive.tpot, archive.points[:, 0] * 2)
    assert len(archive) <= explore.KEEP * 3


def test_an_archive_of_nothing_feasible_stays_empty_and_still_breeds():
    archive, entered = add(Archive.empty(2, 1), np.zeros((3, 2)), np.full((3, 1), np.inf), np.full(3, np.inf))
    assert len(archive) == len(entered) == 0
    children = breed(archive, np.random.default_rng(0), 500, 2)
    assert children.shape == (500, 2)
    assert np.ptp(children, axis=0) == pytest.approx([1, 1], abs=0.05)


def parents(seed=0):
    rng = np.random.default_rng(seed)
    return add(Archive.empty(4, 3), rng.random((20, 4)), rng.random((20, 3)), rng.random(20))[0]


def test_children_are_the_same_for_a_seed_and_lie_in_the_cube():
    archive = parents()
    one, same, other = (breed(archive, np.random.default_rng(s), 300, 4) for s in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1
    assert len(np.unique(one, axis=0)) > 250


def test_children_resemble_their_parents_and_some_ignore_them():
    archive = Archive(np.full((1, 4), 0.5), np.ones((1, 1)), np.ones(1))
    children = breed(archive, np.random.default_rng(0), 2000, 4)
    away = np.abs(children - 0.5).max(axis=1)
    assert (away < 0.25).mean() > 0.5
    assert (away > 0.4).mean() > explore.RANDOM / 2


def test_every_cell_breeds_not_only_the_cheapest():
    corners = np.array([[0.1, 0.1], [0.9, 0.9]])
    archive = Archive(corners, np.array([[1.0, np.inf], [np.inf, 1e9]]), np.ones(2))
    children = breed(archive, np.random.default_rng(0), 1000, 2)
    near = [(np.abs(children - c).max(axis=1) < 0.1).mean() for c in corners]
    assert min(near) > 0.15


def valley(points):
    """Cost with a narrow curved valley; cell 1 wants the far corner and allows half of the cube. Optima: (0.3, 0.09, 0.3), (1, 1, 1)."""
    x, y, z = points.T
    first = 1 + 100 * (y - x**2) ** 2 + (x - 0.3) ** 2 + (z - x) ** 2
    second = np.where(x > 0.5, 1 + (1 - x) + (1 - y) + (1 - z), np.inf)
    return np.stack([first, second], axis=1)


def search(seed, children):
    rng, archive = np.random.default_rng(seed), Archive.empty(3, 2)
    for _ in range(30):
        points = children(archive, rng)
        archive, _ = add(archive, points, valley(points), np.ones(len(points)))
    return archive.costs.min(axis=0) - 1


def test_breeding_finds_a_known_optimum_better_than_chance():
    bred = np.array([search(s, lambda a, rng: breed(a, rng, 64, 3)) for s in range(5)])
    chance = np.array([search(s, lambda _, rng: rng.random((64, 3))) for s in range(5)])
    assert (bred < 0.01).all()
    assert (np.median(bred, axis=0) < np.median(chance, axis=0) / 5).all()
    np.testing.assert_array_equal(bred[2], search(2, lambda a, rng: breed(a, rng, 64, 3)))
