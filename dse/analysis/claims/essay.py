"""The essay on economies of scale and the note on compute-bound inference: textbook estimates against the model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from dse.analysis import demand
from dse.analysis.claims.bench import (
    IDEAL,
    MEMORY_BOUNDS,
    Bench,
    bound,
    family_label,
    no_link_time,
    no_memory_time,
    numbers,
    short,
    smallest_batch,
)
from dse.analysis.claims.verdict import Finding
from dse.evaluate import worst_slack
from dse.present import BOUNDS, violations
from dse.study.claims import ClaimRow
from dse.types import SLACK_TOLERANCE, Chip

MS = 1e3
BATCHES = tuple(2.0**k for k in range(15))


def _balance(chip: Chip) -> float:
    return float(chip.peak_flop_per_s.fp8 * chip.memory.s_per_byte)


def imbalance(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    ours, real = _balance(bench.chip(g["chip"])), bench.chip(g["real"])
    gemm = real.kernels.gemm.fp8
    reached = _balance(real) * float(gemm.compute_efficiency / gemm.memory_efficiency)
    why = (
        f"{short(ours)} with the rounded figures; the chip as sold does {short(float(real.peak_flop_per_s.fp8) / 1e12)} TFLOP/s dense over "
        f"{short(1e-12 / float(real.memory.s_per_byte))} TB/s = {short(_balance(real))} (the 3e15 is the sparse rate of the PCIe part)"
    )
    return Finding(ours=ours, why=why, calibrated=reached, cases={"H100 SXM, dense": _balance(real)})


def fit_20(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given

    def fewest(constants: str, **work: Any) -> tuple[float, str]:
        reason = "nothing"
        for tp in range(1, int(g["most"]) + 1):
            m = bench.run(g["chip"], g["model"], constants, tp=tp, **work)
            if float(worst_slack(m.slack)) >= SLACK_TOLERANCE:
                return float(tp), reason
            reason = violations(m)[0]["limit"]
        return math.inf, reason

    chips, reason = fewest(IDEAL)
    more, _ = fewest("calibrated", isl=g["context"], osl=g["context"], batch=g["batch"], serving="aggregated")
    m = bench.run(g["chip"], g["model"], IDEAL, tp=chips)
    spare = float(m.slack.memory) * float(m.memory_byte_per_chip.capacity)
    why = (
        f"{chips - 1:g} chips fail by {reason}, {chips:g} have {short(max(spare, 0.0) / 1e9)} GB to spare each; with reserve, "
        "activations and the "
        f"cache of {g['batch']} requests it takes {short(more)}"
    )
    return Finding(ours=chips, why=why, calibrated=more)


def compute_step(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    tp = g.get("tp", 1)
    chip = {c: no_memory_time(bench.chip(g["chip"], c)) for c in (IDEAL, "calibrated")}
    ideal, real = (float(bench.run(chip[c], g["model"], tp=tp).tpot_s) for c in (IDEAL, "calibrated"))
    flop = float(bench.run(chip[IDEAL], g["model"], tp=tp).mfu) * ideal * tp * _peak(bench, g["chip"], g["model"])
    why = (
        f"{short(flop)} FLOP over {tp} x {short(_peak(bench, g['chip'], g['model']))} FLOP/s are {short(ideal * MS)} ms; "
        f"{short(real * MS)} ms with fixed times and reached rates"
    )
    return Finding(ours=ideal, why=why, calibrated=real)


def _peak(bench: Bench, chip: str, model: str) -> float:
    peak = bench.chip(chip).peak_flop_per_s
    eight = float(bench.catalog.models[model].native.weight_byte) == 1.0
    return float(peak.fp8 if eight else peak.bf16)


def memory_step(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    ideal, real = (bench.run(g["chip"], g["model"], c, tp=g["tp"]) for c in (IDEAL, "calibrated"))
    held = float(ideal.memory_byte_per_chip.weights) * g["tp"]
    rate = g["tp"] / float(bench.chip(g["chip"]).memory.s_per_byte)
    why = (
        f"{short(held / 1e12)} TB over {short(rate / 1e12)} TB/s are {short(float(ideal.tpot_s) * MS)} ms; "
        f"{short(float(real.tpot_s) * MS)} ms calibrated"
    )
    return Finding(ours=float(ideal.tpot_s), why=why, calibrated=float(real.tpot_s))


def utilisation(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    ideal, real = (bench.run(g["chip"], g["model"], c, tp=g["tp"], batch=g["batch"]) for c in (IDEAL, "calibrated"))
    why = (
        f"{short(float(ideal.mfu) * 100)} % at batch {g['batch']} if only weights are read; {short(float(real.mfu) * 100)} % with all "
        "terms "
        f"(a step of {short(float(real.tpot_s) * MS)} instead of {short(float(ideal.tpot_s) * MS)} ms)"
    )
    return Finding(ours=float(ideal.mfu), why=why, calibrated=float(real.mfu))


def comm_worse(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    chip = bench.chip(g["chip"])
    ratios, shares = {}, {}
    for batch in g["batches"]:
        m = bench.run(chip, g["model"], tp=g["tp"], batch=batch)
        free = bench.run(no_link_time(chip), g["model"], tp=g["tp"], batch=batch)
        ratios[f"batch {batch}"] = float(m.tpot_s / free.tpot_s)
        shares[f"batch {batch}"] = float(m.time_s.collectives / m.tpot_s) * 100
    hidden = bench.run(g["chip"], g["model"], IDEAL, tp=g["tp"], batch=g["batches"][-1])
    ideal_free = bench.run(no_link_time(bench.chip(g["chip"], IDEAL)), g["model"], tp=g["tp"], batch=g["batches"][-1])
    why = (
        f"communication is {numbers(shares)} per cent of the step and lengthens it by factors of {numbers(ratios)}; with overlap complete "
        f"(ideal) by {short(float(hidden.tpot_s / ideal_free.tpot_s))}"
    )
    first = f"batch {g['batches'][0]}"
    return Finding(ours=ratios[first], why=why, cases={name: value for name, value in ratios.items() if name != first})


def thousandfold(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given

    def ratio(constants: str) -> float:
        def cost(batch: float) -> float:
            own = {"isl": g["isl"], "osl": g["osl"], "prices": g["prices"], "tp": g["tp"], "batch": batch}
            m = bench.run(g["chip"], g["model"], constants, serving="aggregated", **own)
            return float(m.usd_per_million_output_token)

        return demand.centralisation([cost(b) for b in BATCHES])

    ideal, real = ratio(IDEAL), ratio("calibrated")
    families = {family_label(f): demand.centralisation(bench.families.curve(f)) for f in bench.families.families}
    families = {name: value for name, value in families.items() if math.isfinite(value)}
    why = (
        f"{short(ideal)} on the essay's system at ideal rates (each byte of weights brings two operations, so the balance of "
        f"{short(_balance(bench.chip(g['chip'])))} is reached with half as many requests; activations, links and heat take more), "
        f"{short(real)} calibrated; by family: {numbers(families)}"
    )
    return Finding(ours=ideal, why=why, calibrated=real, cases=families)


def users(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    concurrent = _balance(bench.chip(g["chip"]))
    ours = demand.users_of(concurrent, g["use_s_per_day"])

    def half(constants: str) -> float:
        best = max(float(bench.run(g["chip"], g["model"], constants, tp=g["tp"], batch=b).mfu) for b in BATCHES)
        reached = lambda b: float(bench.run(g["chip"], g["model"], constants, tp=g["tp"], batch=b).mfu) >= g["share"] * best  # noqa: E731
        return smallest_batch(reached)

    batch = half("calibrated")
    needed = demand.users_of(batch, g["use_s_per_day"])
    why = (
        f"{short(concurrent)} requests at a time x {short(demand.DAY_S / g['use_s_per_day'])}; a million users keep them busy down to "
        f"{short(100 * demand.DAY_S * concurrent / g['use_s_per_day'] / g['million'])} % of the mean load; calibrated, "
        f"{short(g['share'] * 100)} % of the best "
        f"utilisation needs {short(batch)} requests, {short(needed)} users"
    )
    return Finding(ours=ours, why=why, calibrated=needed)


def brain(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    chip, other = bench.chip(g["chip"]), bench.chip(g["brain"])
    low, high = bench.interval("chips", g["brain"], "tdp")
    ours = float(chip.tdp_w / other.tdp_w)
    gpu = bench.run(g["chip"], g["model"], tp=g["tp"], osl=1024, serving="aggregated", prices=g["prices"])
    own = replace(bench.chip(g["brain"], IDEAL), host_share=0.0)
    thought = bench.run(own, g["model"], IDEAL, osl=1024, serving="aggregated", prices=g["prices"])
    balance = float(other.peak_flop_per_s.fp8 * other.sram.s_per_byte)
    served = {family_label(f): bench.families.alone(f) for f in bench.families.families if math.isfinite(bench.families.alone(f))}
    why = (
        f"{short(float(chip.tdp_w))} W over {short(float(other.tdp_w))} W ({short(float(chip.tdp_w) / high)} to "
        f"{short(float(chip.tdp_w) / low)} over its interval); "
        f"balance {short(balance)} FLOP/byte against {short(_balance(chip))}; one user of the 1.6e12 model costs "
        f"{short(float(gpu.j_per_output_token))} J a token "
        f"on {g['tp']} chips, {short(float(thought.j_per_output_token))} J there; USD per million tokens for one user of the 70B "
        f"model: {numbers(served)}"
    )
    return Finding(ours=ours, why=why, cases={f"at {short(w)} W": float(chip.tdp_w) / w for w in (low, high)})


def engineered_away(bench: Bench, row: ClaimRow) -> Finding:
    limit, costs = row.given["tpot_s"], bench.families
    shared = costs.least("hbm_gpu", limit)
    alone = {f: costs.alone(f, limit) / shared for f in costs.families}
    alone = {f: value for f, value in alone.items() if math.isfinite(value)}
    best = min(alone, key=alone.__getitem__)
    own = demand.centralisation(costs.curve(best, limit))
    why = (
        f"the cheapest for one user is {family_label(best)}: {short(alone[best])} times a token of the batched GPU ({short(shared)} "
        "USD a million) and "
        f"{short(own)} times its own best batch; others: {numbers({family_label(f): v for f, v in alone.items() if f != best})}"
    )
    return Finding(ours=alone[best], why=why)


def ridge(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    chip = bench.chip(g["chip"], IDEAL)
    step = float(bench.run(chip, g["model"]).tpot_s)
    compute = float(bench.run(no_memory_time(chip), g["model"]).tpot_s)
    ours = step / compute / float(chip.memory.s_per_byte)
    low, high = g["hundreds"]

    def flips(c: str) -> float:
        return smallest_batch(lambda b: bound(bench.run(bench.chip(g["chip"], c), g["model"], batch=b)) == "compute")

    ideal, real = flips(IDEAL), flips("calibrated")
    inside = "inside" if low <= ideal < high else "outside"
    why = (
        f"weights move in {short(step * MS)} ms and are used in {short(compute * MS)} ms; at "
        f"{short(1e-12 / float(chip.memory.s_per_byte))} TB/s the step is "
        f"compute-bound from batch {short(ideal)} ({inside} the hundreds), calibrated from {short(real)}"
    )
    return Finding(ours=ours, why=why)


def prefill_bound(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    prefill, decode, both, flipped = 0, 0, dict.fromkeys(g["batches"], 0), []
    cells = [(c, m, b) for c in g["chips"] for m in g["tp"] for b in g["batches"]]
    for chip, model, batch in cells:
        m = bench.run(chip, model, isl=g["isl"], osl=g["osl"], tp=g["tp"][model], batch=batch, serving="static")
        first, second = BOUNDS[int(m.bound_prefill)] == "compute", bound(m) in MEMORY_BOUNDS
        prefill, decode = prefill + first, decode + second
        both[batch] += first and second
        name = f"{bench.catalog.records['chips'][chip].name}, {bench.catalog.records['models'][model].name}, batch {batch}"
        flipped += [] if second else [f"decoding by {bound(m)} on {name}"]
        flipped += [] if first else [f"prefill by {BOUNDS[int(m.bound_prefill)]} on {name}"]
    n, each = len(cells), len(cells) // len(both)
    cases = {f"batch {batch}": count / each for batch, count in both.items()}
    why = (
        f"prefill bound by compute in {prefill} of {n} deployments, decoding by weights or cache in {decode}; share with both: "
        f"{numbers(cases)}"
    )
    why += f"; else for example {flipped[0]}" + (f", {flipped[-1]}" if len(flipped) > 1 else "") if flipped else ""
    return Finding(ours=sum(both.values()) / n, why=why, cases=cases)


CHECKS = {
    "imbalance": imbalance,
    "fit-20": fit_20,
    "compute-0.05ms": compute_step,
    "memory-27ms": memory_step,
    "util-0.2pct": utilisation,
    "util-20pct": utilisation,
    "comm-worse": comm_worse,
    "thousandfold": thousandfold,
    "users-144k": users,
    "brain": brain,
    "engineered-away": engineered_away,
    "500B-1ms": compute_step,
    "500B-1PBs": ridge,
    "prefill-bound": prefill_bound,
}
