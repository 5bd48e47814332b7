"""Steps over a limit of the chip itself stop there: just inside, on the way from the mother, with the child's choices."""

from __future__ import annotations

import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.questions import shop_of
from dse.search.designs import Builder, alike, build_block, column
from dse.search.mend import eased, mended, worst

FAMILY, N = "hbm_gpu", 32


@pytest.fixture(scope="module")
def shop():
    return shop_of(FAMILY, {}, load_catalog())


@pytest.fixture(scope="module")
def pair(shop):
    """Mothers that keep their limits, and children of which many do not."""
    rng = np.random.default_rng(0)
    points = rng.random((16 * N, shop.space.dimension))
    mothers = points[worst(shop, points) >= 0][:N]
    return mothers, np.clip(mothers + 0.3 * rng.standard_normal(mothers.shape), 0.0, 1.0)


def test_the_tightest_limit_is_that_of_the_chip_as_it_is_built(shop, pair):
    _, children = pair
    slack = build_block(shop, shop.space.decode(children)).chip.slack
    least = np.min([np.broadcast_to(np.asarray(x), (N,)) for x in (slack.reticle, slack.beachfront, slack.heat, slack.package)], axis=0)
    np.testing.assert_allclose(worst(shop, children), least, rtol=1e-9, atol=1e-12)


def test_a_child_over_a_limit_stops_at_it_and_the_others_stay(shop, pair):
    mothers, children = pair
    whole = np.isfinite([v.size for v in shop.space.variables])
    before, found = worst(shop, children), mended(shop, mothers, children)
    after = worst(shop, found)
    assert 5 < (before < 0).sum() < N
    np.testing.assert_array_equal(found[before >= 0], children[before >= 0])
    np.testing.assert_array_equal(found[:, whole], children[:, whole])
    mendable = (before < 0) & (worst(shop, eased(shop, np.where(whole, children, mothers))) >= 0)
    assert mendable.sum() > 3
    assert (after[mendable] >= 0).all()
    beyond = found + 1e-3 * np.where(whole, 0.0, children - found)  # the next bit of the same step breaks the limit
    short = mendable & (np.abs(children - found).max(axis=1) > 1e-2)
    assert (worst(shop, beyond)[short] < 0).all()
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_blocks_built_in_one_call_are_the_same_chips(shop, pair):
    import jax

    values = shop.space.decode(pair[0][:7])
    plain = column(build_block(shop, {k: np.r_[v, np.repeat(v[-1:], N - 7)] for k, v in values.items()}).chip, N)
    build = Builder(shop, N)
    for _ in range(2):
        for a, b in zip(jax.tree.leaves(alike(plain, N)), jax.tree.leaves(build(values)), strict=True):
            assert np.shape(a) == np.shape(b)
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-30)
