"""The exercise on an A100: how long one gated feed-forward block takes, by the operator equations that predict measured rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dse.analysis.claims.bench import IDEAL, Bench, short
from dse.analysis.claims.verdict import Finding
from dse.study.claims import ClaimRow
from dse.types import Chip
from dse.validate.operators import Job, predict_seconds
from dse.validate.resolve import Resolved
from dse.validate.shapes import Case, plain_gemm

US, BF16_BYTE = 1e6, 2.0
ACTIVATED = 3.0  # values that the fused element-wise kernel moves for each element: two read, one written


def _resolved(bench: Bench, chip: Chip, identity: str, constants: str) -> Resolved:
    name = IDEAL if constants == IDEAL else bench.catalog.constants_of(identity)[0]
    return Resolved(identity, "claim", chip, bench.catalog.records["constants"][name])


def _seconds(bench: Bench, chip: Chip, identity: str, constants: str, *cases: Case) -> float:
    on = _resolved(bench, chip, identity, constants)
    return float(sum(predict_seconds([Job(0, case, on)], 1)[0] for case in cases))


def _block(g: Any) -> tuple[Case, ...]:
    """Two products that widen, the gate, one that narrows; queued behind one another as in an engine, no launch waits for the host."""
    b, d, f = (float(g[name]) for name in ("b", "d", "f"))
    wide, narrow = (replace(plain_gemm(b, *shape), variant="") for shape in ((f, d), (d, f)))
    gate = Case("elementwise", "elementwise", "bf16", {"moved_byte": BF16_BYTE * ACTIVATED * b * f})
    return wide, wide, gate, narrow


def _flop(g: Any) -> float:
    return 3.0 * 2.0 * g["b"] * g["d"] * g["f"]


def tensor_cores(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    fast = {c: bench.chip(g["chip"], c) for c in (IDEAL, "calibrated")}
    fast = {c: replace(chip, memory=replace(chip.memory, s_per_byte=0.0)) for c, chip in fast.items()}
    products = [case for case in _block(g) if case.equation == "gemm"]
    ideal, real = (_seconds(bench, fast[c], g["chip"], c, *products) for c in (IDEAL, "calibrated"))
    peak = float(fast[IDEAL].peak_flop_per_s.bf16)
    why = (
        f"{short(_flop(g))} FLOP at {short(peak / 1e12)} TFLOP/s are {short(ideal * US)} us; {short(real * US)} us with floors and "
        "reached rates"
    )
    return Finding(ours=ideal, why=why, calibrated=real)


def vector_units(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    chip = bench.chip(g["chip"])
    ours = 2.0 * g["b"] * g["f"] / float(chip.vector_flop_per_s)
    alone = _seconds(bench, chip, g["chip"], "calibrated", *[case for case in _block(g) if case.equation == "elementwise"])
    why = (
        f"{short(2.0 * g['b'] * g['f'])} operations at {short(float(chip.vector_flop_per_s) / 1e12)} TFLOP/s; as a kernel of its own "
        "the same part would take "
        f"{short(alone * US)} us, for its floor and its traffic"
    )
    return Finding(ours=ours, why=why, calibrated=alone)


def memory(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    ideal, real = (_products(bench, g, c) for c in (IDEAL, "calibrated"))
    byte = BF16_BYTE * 3.0 * g["d"] * g["f"]
    why = (
        f"{short(byte / 1e6)} MB of weights and the activations at {short(1e-12 / float(bench.chip(g['chip']).memory.s_per_byte))} "
        f"TB/s; {short(real * US)} us with reached bandwidth and floors"
    )
    return Finding(ours=ideal, why=why, calibrated=real)


def _products(bench: Bench, g: Any, constants: str) -> float:
    products = [case for case in _block(g) if case.equation == "gemm"]
    return _seconds(bench, bench.chip(g["chip"], constants), g["chip"], constants, *products)


def measured(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    real = _seconds(bench, bench.chip(g["chip"]), g["chip"], "calibrated", *_block(g))
    ideal = _products(bench, g, IDEAL)
    why = (
        f"{short(real * US)} us with fitted constants, {short(100 * (real / g['estimate'] - 1))} % above the estimate of "
        f"{short(g['estimate'] * US)} us; ideal {short(ideal * US)} us. "
        "Four kernels are taken one after another; a compiler may have fused some"
    )
    return Finding(ours=real, why=why, calibrated=real)


CHECKS = {"mlp-tc": tensor_cores, "mlp-cuda": vector_units, "mlp-mem": memory, "mlp-measured": measured}
