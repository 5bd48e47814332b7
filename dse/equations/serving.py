"""What do users see? Time per output token and to the first token of a closed loop, and how full an instance is.

The serving modes differ in which of two passes they combine: a decoding step of everybody, and the prefill of a newcomer.
"""

from __future__ import annotations

import jax.numpy as jnp

from dse.equations.smooth import TINY
from dse.types import Number


def interference_s(batch: Number, output_tokens: Number, prefill_s: Number, factor: Number) -> Number:
    r"""Prefill work of other requests that falls into one decoding step: :math:`\iota\,(B/n_{out})\,t_{prefill}`.

    Bookkeeping, not a correction: every finished request brings one prefill, and B / n_out requests finish in a step.

    Args:
        batch: Requests in the instance (of one attention rank) [1]. output_tokens: Of a request [token].
        prefill_s: Time that one prefill takes from the stage [s]. factor: Fitted, near 1 [1].

    References: dse-operator-fit

    >>> round(interference_s(64.0, 1024.0, 0.1, 1.0), 5)
    0.00625
    """
    return factor * batch / output_tokens * prefill_s


def first_token_s(
    host_s: Number,
    tpot_s: Number,
    prefill_s: Number,
    load: Number,
    queue: Number,
    batch: Number,
    slot_s: Number = 0.0,
    steps: Number = 2.0,
) -> Number:
    r"""Mean time to first token in a closed loop.

    .. math:: h + n\,TPOT + P\,\left(1 + \frac{\rho}{1 - \rho}\right) + \xi\,\frac{B - 1}{2}\,P + t_s,
        \quad \rho = \min\left(\tfrac{B}{n_{out}} P / TPOT,\ 0.9\right)

    Args:
        host_s: Fixed part [s]. tpot_s: Time per output token [s]. prefill_s: One prefill [s].
        load: Share of the time spent in prefill, rho before the bound [1]. queue: xi [1]. batch: B of the rank [1].
        slot_s: Wait for a place in the running batch, t_s [s].
        steps: Decoding steps n before a new request is taken up and after its prefill, which the engine's polling decides [1].

    References: dse-operator-fit

    >>> round(float(first_token_s(0.014, 0.02, 0.1, 0.3, 0.02, 64.0)), 4)
    0.2599
    """
    rho = jnp.minimum(load, BUSIEST)
    return host_s + steps * tpot_s + prefill_s / (1.0 - rho) + queue * (batch - 1.0) / 2.0 * prefill_s + slot_s


BUSIEST = 0.9  # load beyond which the queueing term is held: above it a closed loop throttles itself


def prefill_load(batch: Number, output_tokens: Number, prefill_s: Number, tpot_s: Number) -> Number:
    """Share of the time that an instance spends in prefill [1]."""
    return batch / output_tokens * prefill_s / jnp.maximum(tpot_s, TINY)


def slot_wait_s(waiting: Number, output_tokens: Number, tpot_s: Number, batch: Number) -> Number:
    r"""Mean wait for a place in the running batch with ``waiting`` requests outside it: :math:`w\,n_{out}\,TPOT/B`, by Little's law [s].

    >>> slot_wait_s(0.5, 512.0, 0.008, 8.0)
    0.256
    """
    return waiting * output_tokens * tpot_s / batch


def balance_wait_steps(longest_steps: Number, ranks: Number, batch: Number, output_tokens: Number) -> Number:
    r"""Mean wait of a new request until every attention rank has one to prefill, at most T decoding steps:
    :math:`\tfrac12 (1 - 1/d)\,\tau (1 - e^{-T/\tau})` with :math:`\tau = n_{out} / B` steps between two that start on a rank.

    All ranks take a step together, so that a prefill on one of them holds up the others. Engines that balance therefore start prompts on
    all d ranks in one step, and give a new request to a rank that has none: the k-th waits for d - k more, tau / d apart. The last factor,
    the chance that a request comes to a rank in time, stands for the end of the wait.

    Args:
        longest_steps: T, after which a request waits no more [1]. ranks: d [1]. batch: B of one rank [1].
        output_tokens: Of a request [token].

    References: trtllm-adp-balance

    >>> round(float(balance_wait_steps(60.0, 2.0, 32.0, 1024.0)), 3)  # 8 (1 - exp(-60 / 32))
    6.773
    """
    between = output_tokens / batch
    return 0.5 * (1.0 - 1.0 / ranks) * between * -jnp.expm1(-longest_steps / between)


def gathering_wait_steps(longest_steps: Number, batch: Number, output_tokens: Number) -> Number:
    r"""Mean wait of a new request on a server that gathers prompts for T decoding steps: :math:`T\,(1 + a/2) / (1 + a)` with
    :math:`a = T B / n_{out}`.

    The first one that comes starts the clock and waits T; the a others that come meanwhile wait half as long, and all start together.

    Args:
        longest_steps: T [1]. batch: B of one rank [1]. output_tokens: Of a request [token].

    References: inferencemax-scripts

    >>> gathering_wait_steps(20.0, 51.2, 1024.0)  # one comes while the first one waits: (20 + 10) / 2
    15.0
    """
    meanwhile = longest_steps * batch / output_tokens
    return longest_steps * (1.0 + meanwhile / 2.0) / (1.0 + meanwhile)


def polling_wait_steps(poll_steps: Number) -> Number:
    """Mean wait of a new request until a scheduler that looks every ``poll_steps`` decoding steps sees it [1].

    References: inferencemax-scripts

    >>> polling_wait_steps(30.0)
    15.0
    """
    return poll_steps / 2.0


def uneven_prefill(uneven: Number, ranks: Number, input_tokens: Number, chunk_tokens: Number) -> Number:
    r"""Prefill that holds up a rank, relative to that of its own prompts: :math:`1 + u\,(1 - 1/d)\,n_{in} / (n_{in} + c)`.

    All d attention ranks take a step together, at the pace of the slowest. Short prompts fill a chunk of c tokens on every rank; one that
    is a chunk or more by itself starts on one rank while the others decode, and waits for theirs in turn.

    Args:
        uneven: u, 0 where all ranks prefill at once [1]. ranks: d [1]. input_tokens: Of a prompt [token]. chunk_tokens: c [token].

    References: trtllm-adp-balance

    >>> uneven_prefill(2.0, 2.0, 8192.0, 8192.0), uneven_prefill(2.0, 1.0, 8192.0, 8192.0)
    (1.5, 1.0)
    """
    return 1.0 + uneven * (1.0 - 1.0 / ranks) * input_tokens / (input_tokens + chunk_tokens)


def requests_per_s(batch: Number, ttft_s: Number, tpot_s: Number, output_tokens: Number) -> Number:
    """Requests finished in a second by a closed loop of ``batch`` requests (Little's law) [1/s].

    >>> round(float(requests_per_s(64.0, 0.5, 0.02, 1024.0)), 3)
    3.053
    """
    return batch / (ttft_s + jnp.maximum(output_tokens - 1.0, 0.0) * tpot_s)


def queue_s(service_s: Number, load: Number) -> Number:
    r"""Mean wait before a server of fixed service time with random arrivals (M/D/1): :math:`S \rho / (2 (1 - \rho))` [s].

    References: kleinrock1975

    >>> queue_s(0.1, 0.5)
    0.05
    """
    return service_s * load / (2.0 * (1.0 - load))
