"""How many tokens does a step with a drafted guess give? Speculative decoding with a draft model, or with the model's own extra layer."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from dse.types import LLM, Number

CERTAIN = 1.0 - 1e-6  # acceptance is held below 1, so that the sum stays a quotient


def tokens_per_step(acceptance: Number, drafted: Number) -> Number:
    r"""Tokens of one verified step: :math:`(1 - \alpha^{\gamma + 1}) / (1 - \alpha)`.

    The drafted tokens are accepted up to the first that the model itself would not have drawn; one more comes from the model.

    Args:
        acceptance: Probability that a drafted token is accepted [1]. drafted: Tokens drafted in a step [token].

    References: leviathan-2023

    >>> round(float(tokens_per_step(0.8, 4.0)), 4)  # 1 + 0.8 + 0.64 + 0.512 + 0.4096
    3.3616
    >>> round(float(tokens_per_step(0.0, 4.0)), 3), round(float(tokens_per_step(1.0, 4.0)), 3)
    (1.0, 5.0)
    """
    a = jnp.clip(acceptance, 1.0 - CERTAIN, CERTAIN)
    return -jnp.expm1((drafted + 1.0) * jnp.log(a)) / (1.0 - a)


def extra_layer(model: LLM) -> LLM:
    """The multi-token prediction module of a model as a draft: one more layer like its last, and the output head that it shares."""
    last = model.groups[-1]
    layer = replace(last, mixers=jnp.minimum(last.mixers, 1.0), ffns=jnp.minimum(last.ffns, 1.0))
    return replace(model, groups=(layer,), embedding_params=0.0)
