"""Experts of one token over scale-up domains: how many it reaches, by simulated routers, and what that changes in a deployment."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

import dse
from dse.equations.collectives import domains_reached
from dse.types import Layout, Workload

EXPERTS, PER_TOKEN = 256, 8


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


def plain(d):
    """One answer without compiling."""
    with jax.disable_jit():
        return dse.evaluate(d)


def reached(domains, groups, chosen, tokens=4000):
    """Mean number of domains of tokens whose router takes ``chosen`` groups at random, then experts of them at random."""
    rng = np.random.default_rng(0)
    group = np.argsort(np.argsort(rng.random((tokens, groups)), axis=1), axis=1) < chosen
    score = np.where(np.repeat(group, EXPERTS // groups, axis=1), rng.random((tokens, EXPERTS)), -1.0)
    taken = np.argsort(-score, axis=1)[:, :PER_TOKEN]
    return np.mean([len(set(row)) for row in taken * domains // EXPERTS])


@pytest.mark.parametrize(("groups", "chosen", "most"), [(8, 4, 64), (8, 2, 16), (16, 3, 16), (1, 1, 64)])
def test_domains_reached_are_those_of_a_simulated_router(groups, chosen, most):
    for domains in (d for d in (1, 2, 4, 8, 16, 64) if d <= most):
        said = float(domains_reached(float(domains), float(PER_TOKEN), float(groups), float(chosen)))
        assert said == pytest.approx(reached(domains, groups, chosen), rel=0.03), domains
        assert said <= (chosen if domains == groups else min(domains, PER_TOKEN)) + 1e-6


def test_the_limit_of_groups_and_one_copy_a_domain_save_what_crosses_the_network(cat):
    """DeepSeek-V3 on 64 chips in eight servers and in one domain, with its limit of groups and without."""
    model, chip = cat.models["deepseek-v3"], cat.chips["nvidia-h100-sxm"]
    assert [float(g.ffn.groups_per_token) for g in model.groups][-1] == 4.0
    limits = np.array([4.0, 8.0])
    d = dse.Deployment(
        chip=replace(chip, scale_up=replace(chip.scale_up, chips=np.array([[8.0], [64.0]]))),
        model=replace(model, groups=tuple(replace(g, ffn=replace(g.ffn, groups_per_token=limits[None, :])) for g in model.groups)),
        workload=Workload(input_tokens=1024.0, output_tokens=1024.0),
        layout=Layout(dp=64.0, ep=64.0, batch=4096.0),
        prices=cat.prices["owner-2026"],
        serving="decode",
    )
    (limited, free), (near, near_free) = np.asarray(plain(d).time_s.collectives)
    assert near == near_free < limited < 0.95 * free


def test_where_chips_share_an_expert_tokens_are_gathered(cat):
    """ep of 2 over 8 chips: four chips need each token's row, so that it cannot be cheaper to send than ep of 8 is."""

    def exchanged(ep, batch):
        d = dse.Deployment(
            chip=cat.chips["nvidia-h100-sxm"],
            model=cat.models["mixtral-8x7b"],
            workload=Workload(input_tokens=1024.0, output_tokens=1024.0),
            layout=Layout(dp=8.0, ep=ep, batch=batch),
            prices=cat.prices["owner-2026"],
            serving="decode",
        )
        return float(plain(d).time_s.collectives)

    gathered, shared, whole = (exchanged(ep, 2048.0) for ep in (1.0, 2.0, 8.0))  # bytes count
    assert shared >= gathered * (1 - 1e-6) and shared >= whole
    gathered, shared, whole = (exchanged(ep, 8.0) for ep in (1.0, 2.0, 8.0))  # latencies count: those of the exchange between experts
    assert gathered < shared <= whole
