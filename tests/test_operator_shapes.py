"""Random shapes through every operator equation: more work never takes less time, twice the rows or tokens at most twice,
nothing beats the ideal."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.evaluate import ideal
from dse.validate.operators import constants_of, machine_of
from dse.validate.predict import EQUATIONS, stacked
from dse.validate.resolve import Chips, Resolved
from dse.validate.shapes import Case

CATALOG = load_catalog()
CHIPS = ("nvidia-a100-80gb-sxm", "nvidia-h100-sxm", "nvidia-b200-sxm", "amd-mi355x")
N = 300
LOG = {  # equation -> ranges (smallest, largest) of its sizes, drawn evenly in the logarithm
    "gemm": {"m": (1, 3e4), "n": (64, 6e4), "k": (64, 3e4), "weight_byte": (0.5, 2)},
    "attention_decode": {"batch": (1, 512), "context": (1, 1e6), "heads": (1, 128), "kv_heads": (1, 128), "dim": (64, 256)},
    "attention_prefill": {"prompt": (1, 1e6), "batch": (1, 64), "heads": (1, 128), "dim": (64, 256)},
    "experts": {"tokens": (1, 1e5), "hidden": (512, 16384), "width": (64, 16384), "experts": (8, 512), "ep": (1, 8)},
    "all_reduce": {"n": (2, 72), "size": (1, 1e10)},
    "exchange": {"n": (2, 64), "size": (1, 1e10)},
    "expert_exchange": {"n": (2, 64), "size": (1, 1e10)},
}
GROWS = {  # what makes more work, whatever else
    "gemm": ("m", "n", "k", "weight_byte"), "attention_decode": ("batch", "context", "heads", "kv_heads"),
    "attention_prefill": ("prompt", "batch", "heads"), "experts": ("tokens", "hidden", "width"), "all_reduce": ("size",),
    "exchange": ("size", "n"), "expert_exchange": ("size", "n"),
}  # fmt: skip
PARTS = [
    ("gemm", "gemm.bf16", "bf16"), ("gemm", "gemm.fp8", "fp8"), ("gemm", "gemm.mxfp4", "mxfp4"), ("attention_decode", "decode", "bf16"),
    ("attention_decode", "decode_fp8", "bf16"), ("attention_decode", "mla_decode", "bf16"), ("attention_prefill", "prefill", "bf16"),
    ("attention_prefill", "mla_prefill", "bf16"), ("experts", "moe.bf16", "bf16"), ("experts", "moe.mxfp4", "mxfp4"),
    ("all_reduce", "all_reduce", "bf16"), ("exchange", "all_gather", "bf16"), ("expert_exchange", "dispatch", "bf16"),
]  # fmt: skip
ONCE = ("batch", "m", "tokens")  # sequences, rows and tokens: two halves one after the other never beat both together


def drawn(equation: str, part: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(part.encode()))
    found = {name: np.exp(rng.uniform(np.log(low), np.log(high), N)) for name, (low, high) in LOG[equation].items()}
    return {name: np.round(v) if name in ("n", "ep") and equation != "gemm" else v for name, v in found.items()}


def sizes(equation: str, d: dict) -> dict:
    """Arguments of an equation from the free sizes of a shape."""
    if equation == "attention_decode":
        tokens = d["batch"] * d["context"]
        work = {"flop": 4 * tokens * d["heads"] * d["dim"], "kv_byte": 4 * tokens * d["kv_heads"] * d["dim"]}
        return {"repeated": 0.0 * tokens, **d, **work, "query_byte": 4 * d["batch"] * d["heads"] * d["dim"]}
    if equation == "attention_prefill":
        pairs = d["batch"] * d["heads"] * d["prompt"] ** 2 / 2
        return {
            **d,
            "flop": 4 * pairs * d["dim"],
            "exponentials": pairs,
            "moved_byte": 8 * d["batch"] * d["prompt"] * d["heads"] * d["dim"],
            "written": 2 * d["batch"] * d["prompt"] * d["heads"] * d["dim"],
        }
    if equation == "experts":
        one = 1.0 + 0 * d["tokens"]
        return {**d, "per_token": 4.0 * one, "uneven": one, "weight_byte": one, "distinct": d["tokens"]}
    if equation == "expert_exchange":
        return {**d, "inside": d["n"], "near_size": d["size"], "far_size": d["size"], "own_size": d["size"]}
    return {**d, "inside": d["n"], "sharing": 1.0} if "n" in d and equation != "gemm" else d


def on_chip(chip: str, perfect: bool) -> Resolved:
    on = Chips(CATALOG, {}).find(chip)
    return Resolved(on.id, "id", ideal(on.chip), CATALOG.records["constants"]["ideal"]) if perfect else on


def timer(equation: str, part: str, form: str, chip: str, perfect: bool = False):
    on, case = on_chip(chip, perfect), Case(equation, part, form, {})
    constants, machine = (jax.tree.map(jnp.squeeze, stacked([x])) for x in (constants_of(case, on), machine_of(case, on)))
    return jax.jit(lambda d: EQUATIONS[equation](sizes(equation, d), constants, machine))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("equation", "part", "form"), PARTS, ids=[p for _, p, _ in PARTS])
def test_random_shapes(equation, part, form, chip):
    d, seconds = drawn(equation, part), timer(equation, part, form, chip)
    before = seconds(d)
    assert (before > 0).all() and jnp.isfinite(before).all()
    assert (before >= timer(equation, part, form, chip, perfect=True)(d) * (1 - 1e-9)).all()
    for name in GROWS[equation]:
        after = seconds({**d, name: 2 * d[name]})
        assert (after >= before * (1 - 1e-9)).all(), name
        if name in ONCE:
            assert (after <= 2 * before * (1 + 1e-9)).all(), name
    slopes = jax.jit(jax.grad(lambda d: seconds(d).sum()))(d)
    assert all(jnp.isfinite(g).all() for g in slopes.values())


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("part", ["decode", "decode_fp8", "mla_decode"])
def test_caches_read_again_and_again(part, chip):
    """A cache that the last call left in the chip is read no slower than one from memory, never faster than the ideal, and still grows."""
    d, seconds = drawn("attention_decode", part), timer("attention_decode", part, "bf16", chip)
    again = {**d, "repeated": jnp.ones(N)}
    held = seconds(again)
    assert (held <= seconds(d) * (1 + 1e-9)).all()
    assert (held >= timer("attention_decode", part, "bf16", chip, perfect=True)(again) * (1 - 1e-9)).all()
    for name in GROWS["attention_decode"]:
        assert (seconds({**again, name: 2 * d[name]}) >= held * (1 - 1e-9)).all(), name
    far = {**again, "batch": 512 + 0 * d["batch"], "context": 1e6 + 0 * d["context"], "kv_heads": 8 + 0 * d["kv_heads"]}
    assert np.allclose(seconds(far), seconds({**far, "repeated": jnp.zeros(N)}), rtol=1e-6)
