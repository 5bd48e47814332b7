"""Do exchanges follow their physics? Bounds, limits, and the finite queue of an offline run."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.catalog import load_catalog
from dse.equations.collectives import all_reduce, deal, exchange, hierarchical_deal
from dse.types import AllReduce, Collective
from dse.validate.queues import read_queues, waves
from dse.validate.resolve import Chips
from dse.validate.runs import Cut, Run
from dse.validate.systems import Evaluator, rest_of

LINK = 1 / 450e9
RING = AllReduce(
    one_shot_s=1.0, peer_s=0.0, one_shot_efficiency=1.0, two_shot_s=1.0, two_shot_efficiency=1.0, ring_s=1e-5, ring_peer_s=1e-6,
    ring_efficiency=0.9, in_switch=0.6, ramp=0.5, local=0.5,
)  # fmt: skip
groups = st.sampled_from((2.0, 4.0, 8.0, 16.0, 72.0))
sizes = st.floats(1e3, 1e10)


@given(groups, sizes, st.floats(0.0, 1.0), st.floats(0.0, 2.0))
def test_no_ring_beats_its_links_and_a_switch_never_slows_it(n, size, in_switch, local):
    plain = replace(RING, in_switch=0.0, local=local)
    with_switch = float(all_reduce(n, size, LINK, replace(plain, in_switch=in_switch), 0.0))
    assert with_switch >= 2 * (n - 1) / n * size * LINK
    assert with_switch <= float(all_reduce(n, size, LINK, plain, 0.0)) * (1 + 1e-9)


def test_large_messages_follow_the_norm_of_links_and_own_buffer():
    """NCCL on A100: 2, 4 and 8 chips at 537 MB took 2781, 3716 and 4226 us; two of them give both constants, the third is predicted."""
    size, link = 536870912.0, 1 / 300e9
    two, eight = (t * 1e-6 / (size * link) for t in (2781.1, 4225.9))
    share = ((eight**2 - two**2) / (1.75**2 - 1.0)) ** -0.5
    local = (two**2 - share**-2) ** 0.5
    fitted = replace(RING, ring_s=0.0, ring_peer_s=0.0, ring_efficiency=share, local=local, in_switch=0.0)
    assert 0.7 < share < 1.0
    assert float(all_reduce(4.0, size, link, fitted, 0.0)) == pytest.approx(3716.3e-6, rel=0.01)


@given(groups, sizes, st.floats(0.0, 2.0))
def test_a_pass_over_the_own_buffer_costs_at_most_its_sum_with_the_links(n, size, local):
    c = Collective(base_s=0.0, peer_s=0.0, efficiency=0.8)
    links, own = float(exchange(n, size, LINK, c)), local * size * LINK
    both = float(exchange(n, size, LINK, replace(c, local=local)))
    assert max(links, own) * (1 - 1e-9) <= both <= (links + own) * (1 + 1e-9)


@given(groups, sizes, st.floats(0.0, 2.0), st.floats(0.0, 1e10))
def test_tokens_dealt_out_beat_no_link_and_two_levels_take_the_slower_one_at_least(n, size, local, own):
    c = Collective(base_s=1e-5, peer_s=1e-6, efficiency=0.8, local=local)
    links = (n - 1) / n * size * LINK
    assert links + 1e-5 <= float(deal(n, size, LINK, c, own)) <= 2e-5 + links / 0.8 + local * own * LINK
    levels = [float(hierarchical_deal(8.0 * n, size, far, 8.0, LINK, 9 * LINK, c, c)) for far in (0.0, size)]
    slower = max(float(deal(8.0, size, LINK, c)), float(exchange(n, size, 9 * LINK, c)))
    assert levels[0] <= levels[1] and slower * (1 - 1e-6) <= levels[1] <= 2**0.25 * slower * (1 + 1e-6)


def test_slopes_are_finite_without_a_switch_or_a_pass():
    bare = replace(RING, in_switch=0.0, local=0.0)
    slopes = jax.grad(lambda c, n, s: all_reduce(n, s, LINK, c, 1.0), argnums=(0, 1, 2))(bare, 8.0, 1e6)
    assert all(float(abs(x)) < float("inf") for x in jax.tree.leaves(slopes))


@given(st.integers(1, 40000), st.integers(1, 4096))
def test_waves_hold_every_request(requests, places):
    full, left = waves(float(requests), float(places))
    assert full * places + left == requests and 0 <= left < places


def test_a_run_that_ends_delivers_less_than_one_without_end():
    catalog = load_catalog()
    evaluator = Evaluator(Chips(catalog, {}), catalog)
    endless = Run("H100-SXM5-80GB", "llama-3.1-8b", "aggregated", None, 128.0, 2048.0, 100.0, Cut(), 1.0, queued=True)

    def rate(requests: float | None) -> float:
        run = replace(endless, requests=requests)
        evaluator.settle([run])
        m = evaluator.metrics(run, run.serving)
        return evaluator.output(run, m, 0.0)

    assert rest_of(replace(endless, requests=300.0)) is None and rate(300.0) == rate(None)
    assert 0.5 * rate(None) < rate(110.0) < rate(310.0) < rate(None)
    assert read_queues()["trtllm", 128.0, 2048.0] == 3000.0
