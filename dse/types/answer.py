"""Parts of an answer: of time, of cost, of memory, and the distance to every limit."""

from __future__ import annotations

from dse.types.base import Number, pytree


@pytree()
class TimeParts:
    """Parts of one decoding step; they sum to ``tpot_s``."""

    compute: Number
    weights: Number
    kv: Number
    collectives: Number
    overhead: Number
    prefill: Number


@pytree()
class CostParts:
    """USD per second of serving, of the instance; they sum to the whole."""

    capital: Number
    system: Number
    nre: Number
    energy: Number
    site: Number
    idle: Number


@pytree()
class MemoryParts:
    """Bytes on the fullest chip."""

    weights: Number
    kv: Number
    activations: Number
    reserve: Number
    capacity: Number


SLACK_TOLERANCE = -1e-6  # a limit met exactly stays met after rounding; datasheets are rounded more coarsely than one in a million


@pytree()
class SlackParts:
    """Distance to every limit, relative to the limit: all >= 0 means feasible."""

    memory: Number
    divisibility: Number
    reticle: Number
    beachfront: Number
    heat: Number
    package: Number
