"""How long does the model say that a described operator takes? Cases of ``shapes`` through the operator equations, many at a time.

The constants and the chip enter as arrays with one number a case, so that the same text predicts (floats of the catalogue) and
calibrates (traced arrays).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import jax.numpy as jnp

from dse.equations import collectives, roofline
from dse.types import AllReduce, AttentionDecode, AttentionPrefill, Collective, Gemm, Moe, Number, pytree
from dse.validate.shapes import Case

ACTIVATION_BYTE = 2.0  # activations enter GEMMs in bf16; the pass that quantises them is a constant of the kernel class


@pytree()
class Elementwise:
    """Constants of an element-wise kernel: its floor and the share of the bandwidth it reaches."""

    floor_s: Number
    efficiency: Number


@pytree()
class Levels:
    """All-reduce inside a scale-up domain and exchange across domains."""

    inner: AllReduce
    outer: Collective


@pytree()
class Exchange:
    """Exchange over scale-up links, or over scale-out links where the ranks are far."""

    near: Collective
    far: Collective


@pytree()
class Machine:
    """What the operator equations need to know of a chip."""

    peak_flop_per_s: Number
    s_per_byte: Number
    exp_per_s: Number
    up_s_per_byte: Number
    out_s_per_byte: Number
    blend: Number


Sizes = Mapping[str, Any]


def _gemm(z: Sizes, c: Gemm, x: Machine) -> Number:
    return roofline.gemm(z["m"], z["n"], z["k"], z["weight_byte"], ACTIVATION_BYTE, c, x.peak_flop_per_s, x.s_per_byte, x.blend).total


def _decode(z: Sizes, c: AttentionDecode, x: Machine) -> Number:
    sizes = (z["batch"], z["context"], z["flop"], z["kv_byte"], z["query_byte"], z["kv_heads"])
    return roofline.attention_decode(*sizes, c, x.peak_flop_per_s, x.s_per_byte, x.s_per_byte, x.blend, z["repeated"]).total


def _prefill(z: Sizes, c: AttentionPrefill, x: Machine) -> Number:
    sizes = (z["prompt"], z["flop"], z["exponentials"], z["moved_byte"])
    return roofline.attention_prefill(*sizes, c, x.peak_flop_per_s, x.exp_per_s, x.s_per_byte, x.blend, z["written"]).total


def _experts(z: Sizes, c: Moe, x: Machine) -> Number:
    sizes = (z["tokens"], z["hidden"], z["width"], 3.0 * jnp.ones_like(z["tokens"]), z["experts"], z["per_token"], z["ep"], z["uneven"])
    return roofline.experts_ffn(*sizes, z["weight_byte"], c, x.peak_flop_per_s, x.s_per_byte, x.blend, z["distinct"]).total


def _all_reduce(z: Sizes, c: Levels, x: Machine) -> Number:
    links = (x.up_s_per_byte, x.out_s_per_byte * z["sharing"])
    return collectives.hierarchical_all_reduce(z["n"], z["size"], z["inside"], *links, c.inner, c.outer, x.blend)


def _exchange(z: Sizes, c: Collective, x: Machine) -> Number:
    return collectives.exchange(z["n"], z["size"], x.up_s_per_byte, c)


def _send(z: Sizes, c: Exchange, x: Machine) -> Number:
    near = collectives.send(z["size"], x.up_s_per_byte, c.near)
    return near + z["far"] * (collectives.send(z["size"], x.out_s_per_byte, c.far) - near)


def _expert_exchange(z: Sizes, c: Exchange, x: Machine) -> Number:
    near = collectives.deal(z["inside"], z["near_size"], x.up_s_per_byte, c.near, z["own_size"])
    return collectives.levels_together(near, collectives.exchange(z["n"] / z["inside"], z["far_size"], x.out_s_per_byte, c.far))


def _elementwise(z: Sizes, c: Elementwise, x: Machine) -> Number:
    return roofline.elementwise(1.0, z["moved_byte"], c.floor_s, c.efficiency, x.s_per_byte).total


EQUATIONS: dict[str, Callable[[Sizes, Any, Machine], Number]] = {
    "gemm": _gemm, "attention_decode": _decode, "attention_prefill": _prefill, "experts": _experts, "all_reduce": _all_reduce,
    "exchange": _exchange, "send": _send, "expert_exchange": _expert_exchange, "elementwise": _elementwise,
}  # fmt: skip


def columns(cases: Sequence[Case]) -> dict[str, Any]:
    """Sizes of cases of one equation, as one array a size."""
    return {name: jnp.array([c.sizes[name] for c in cases]) for name in cases[0].sizes}


def stacked(records: Sequence[Any]) -> Any:
    """Records of one kind (nested dataclasses of numbers) as one record of arrays."""
    first = records[0]
    values = {}
    for f in fields(first):
        parts = [getattr(r, f.name) for r in records]
        values[f.name] = stacked(parts) if hasattr(parts[0], "__dataclass_fields__") else jnp.array([float(p) for p in parts])
    return type(first)(**values)


def seconds(equation: str, cases: Sequence[Case], constants: Any, machine: Any) -> Number:
    """Predicted time of cases of one equation, with constants and machine of one number a case [s]."""
    return EQUATIONS[equation](columns(cases), constants, machine)
