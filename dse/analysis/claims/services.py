"""The discussion, second half: chips against services of a given size, batches, contexts and formats."""

from __future__ import annotations

import math
from typing import Any

from dse.analysis.claims.bench import IDEAL, Bench, bound, largest_batch, numbers, short, smallest_batch
from dse.analysis.claims.families import family_costs
from dse.analysis.claims.silicon import built
from dse.analysis.claims.verdict import Finding
from dse.evaluate import as_floats
from dse.glossary import label
from dse.search.grid import Grid
from dse.search.layouts import best_layouts
from dse.study.claims import ClaimRow
from dse.types import SLACK_TOLERANCE

MS, GB = 1e3, 1e9


def quantisation(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    names = (g["wide"], g["middle"], g["narrow"])

    def step(constants: str, fmt: str) -> float:
        return float(bench.run(g["chip"], g["model"], constants, tp=g["tp"], format=fmt).tpot_s)

    def ridge(fmt: str) -> float:
        return smallest_batch(lambda b: bound(bench.run(g["chip"], g["model"], IDEAL, tp=g["tp"], batch=b, format=fmt)) == "compute")

    ideal, real = (step(c, g["wide"]) / step(c, g["narrow"]) for c in (IDEAL, "calibrated"))
    ridges = {fmt: ridge(fmt) for fmt in names}
    why = (
        f"one user's token is {short(ideal)} times faster in {g['narrow']} than in {g['wide']} ({short(real)} calibrated; scales cost "
        "a part of the bits); the batch at which "
        f"compute binds hardly moves where the arithmetic speeds up as well: {numbers(ridges)}"
    )
    return Finding(ours=ideal, why=why, calibrated=real)


def etched_batch(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given

    def at(batch: float) -> Any:
        return bench.run(g["chip"], g["model"], workload=g["workload"], serving="aggregated", tp=g["tp"], batch=batch, format=g["format"])

    ours = largest_batch(lambda b: float(at(b).slack.memory) >= SLACK_TOLERANCE)
    small, large = at(g["small"]), at(min(row.claim, ours))
    chip, model = bench.chip(g["chip"]), bench.catalog.models[g["model"]]
    peak = g["tp"] * float(chip.peak_flop_per_s.fp8)
    flop = 2.0 * float(model.active_params)
    output_share = g["announced_output"] / (g["announced_output"] + g["announced_input"])
    why = (
        f"{short(ours)} requests fit at {bench.catalog.records['workloads'][g['workload']].name.lower()} contexts; a token costs "
        f"{short(float(small.usd_per_million_output_token / large.usd_per_million_output_token))} times less than at "
        f"{g['small']}. The announced {short(g['announced_token_per_s'])} token/s need "
        f"{short(flop * g['announced_token_per_s'] / 1e15)} PFLOP/s of {short(peak / 1e15)}: as output alone our model gives "
        f"{short(float(large.output_token_per_s_per_chip) * g['tp'])} token/s (limited by {bound(large)}); with {g['announced_input']} "
        f"tokens in and {g['announced_output']} out {short(100 * output_share)} % of them are output"
    )
    return Finding(ours=ours, why=why)


def burned_in(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    m = bench.run(g["chip"], g["model"], isl=g["isl"])
    own = built(bench, g["family"], node=g["node"], die_area_mm2=g["die_area_mm2"], rom_share=g["rom_share"])
    ours_chip = bench.run(own.chip, g["model"], isl=g["isl"])
    fits = float(own.chip.weight_store.capacity_byte) / 0.5
    why = (
        f"reading weights takes {short(100 * float(m.time_s.weights / m.tpot_s))} % of the step, layers the rest; the family's own "
        f"chip of {short(g['die_area_mm2'])} mm2 at {g['node']} "
        f"gives {short(float(ours_chip.interactivity_token_per_s))} token/s and holds {short(fits / 1e9)}e9 weights of 4 bit"
    )
    return Finding(ours=float(m.interactivity_token_per_s), why=why)


def tokens_1e6(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    rate = g["chips"] * float(bench.chip(g["chip"]).peak_flop_per_s.fp8) / g["flop_per_token"]
    ours = g["users"] / rate
    share = _peak_share(bench, g)
    why = (
        f"{short(rate / g['chips'])} token/s a chip is right, but {short(rate)} token/s over {short(g['users'])} users are one token "
        f"every {short(ours * MS)} ms; at the "
        f"{short(100 * share)} % of the peak that a real chip reaches, every {short(ours / share * MS)} ms"
    )
    return Finding(ours=ours, why=why, calibrated=ours / share)


def _peak_share(bench: Bench, g: Any) -> float:
    """Share of the dense 8-bit peak that decoding reaches on a real chip, at its cheapest layout."""
    chip, model = bench.chip(g["real"]), as_floats(bench.catalog.models[g["model"]])
    grid = Grid(tp=(1, 2), pp=(1,), batches=(16, 64, 128, 256, 512), formats=("fp8",))
    _, m = best_layouts(chip, model, as_floats(bench.catalog.workloads[g["workload"]]), bench.catalog.prices[g["prices"]], grid=grid)
    return float(m.output_token_per_s_per_chip) * 2.0 * float(model.active_params) / float(chip.peak_flop_per_s.fp8)


def gpt4_chips(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    tokens = g["users"] / g["interval_s"]
    ours = tokens * g["flop_per_token"] / float(bench.chip(g["chip"]).peak_flop_per_s.fp8)
    rates = {}
    for pp in g["pps"]:
        for batch in g["batches"]:
            m = bench.run(
                g["real"],
                g["model"],
                isl=g["isl"],
                osl=g["osl"],
                serving="aggregated",
                tp=g["tp"],
                pp=pp,
                batch=batch,
                format=g["format"],
                ep=g["tp"],
            )
            if bool(m.feasible):
                rates[(pp, batch)] = m
    best = max(rates.values(), key=lambda m: float(m.output_token_per_s_per_chip), default=None)
    slow = math.inf if best is None else tokens / float(best.output_token_per_s_per_chip)
    real = bench.catalog.models[g["model"]]
    why = (
        f"{short(tokens)} token/s x {short(g['flop_per_token'])} FLOP are {short(ours)} chips at the peak; {short(row.claim)} serve a "
        f"token every {short(ours / row.claim * g['interval_s'] * MS)} ms. The model as leaked "
        f"multiplies {short(float(real.active_params))} weights a token; {short(slow)} H100 serve it at the best of the tried layouts"
    )
    if best is not None:
        why += f" ({short(float(best.output_token_per_s_per_chip))} token/s each, {short(float(best.tpot_s) * MS)} ms a token)"
    return Finding(ours=ours, why=why, calibrated=slow)


def tree_search(bench: Bench, row: ClaimRow) -> Finding:
    g, limit = row.given, float(row.given["tpot_s"])
    owner = {"owner": as_floats(bench.catalog.prices[bench.study.headline.scenario])}
    few = [c for f in (g["family"], g["against"]) for c in bench.families.candidates if c.family == f]
    shared = family_costs(few, owner, bench.study, bench.catalog, g["workload"], (limit,))
    ours = shared.least(g["against"], limit) / shared.least(g["family"], limit)
    plain = bench.families.least(g["against"], limit) / bench.families.least(g["family"], limit)
    gain = {label(f): bench.families.least(f, limit) / shared.least(f, limit) for f in (g["against"], g["family"])}
    alone = bench.families.alone(g["against"], limit) / shared.least(g["against"], limit)
    why = (
        f"a sample of the search is {short(ours)} times cheaper on {label(g['family'])} than on the GPU ({short(plain)} times where "
        f"every request brings a prompt of its own; sharing it saves factors of {numbers(gain)}); on the GPU itself it is "
        f"{short(alone)} times cheaper than a token served alone"
    )
    return Finding(ours=ours, why=why)


def _fits(bench: Bench, g: Any, chip: str, fmt: str, **layout: Any) -> float:
    """Largest batch that the chips hold."""

    def fits(batch: float) -> bool:
        given: dict[str, Any] = {k: float(v) for k, v in layout.items()}
        asked = max(batch, given.get("dp", 1.0))
        m = bench.run(chip, g["model"], isl=g["isl"], osl=g["osl"], serving="aggregated", format=fmt, batch=asked, **given)
        return float(m.slack.memory) >= SLACK_TOLERANCE

    return largest_batch(fits)


def mi300x(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    count = [layout.get("tp", 1) * layout.get("dp", 1) for layout in g["layouts"]]
    node = [_fits(bench, g, g["chip"], g["format"], **layout) for layout in g["layouts"]]
    cluster = g["tp"] * g["pp"]
    old = {fmt: _fits(bench, g, g["old"], fmt, tp=g["tp"], pp=g["pp"], ep=g["tp"]) for fmt in g["old_formats"]}
    best = max(range(len(node)), key=node.__getitem__)
    ratios = {f"A100 in {fmt}": node[best] / value if value > 0 else math.inf for fmt, value in old.items()}
    each = {f"A100 in {fmt}": ratios[f"A100 in {fmt}"] * cluster / count[best] for fmt in old}
    m = bench.run(
        g["chip"], g["model"], isl=g["isl"], osl=g["osl"], serving="aggregated", format=g["format"], batch=8, **g["layouts"][best]
    )
    words = " or ".join(
        f"{short(n)} with {', '.join(f'{k} {v}' for k, v in layout.items())}" for n, layout in zip(node, g["layouts"], strict=True)
    )
    why = (
        f"weights take {short(float(m.memory_byte_per_chip.weights) / GB)} of {short(float(m.memory_byte_per_chip.capacity) / GB)} GB "
        f"of a chip; the node holds {words} requests at "
        f"{g['isl'] + g['osl']} tokens, the {cluster} A100 {numbers(old)}: in all {numbers(ratios)} times as many, for each chip "
        f"{numbers(each)}"
    )
    first, *others = ratios
    return Finding(ours=ratios[first], why=why, cases={name: ratios[name] for name in others})


def gpt4_128(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given

    def at(fmt: str, batch: float = 1.0) -> Any:
        return bench.run(
            g["chip"],
            g["model"],
            isl=g["isl"],
            osl=g["osl"],
            serving="aggregated",
            tp=g["tp"],
            pp=g["pp"],
            ep=g["tp"],
            format=fmt,
            batch=batch,
        )

    wide, narrow = at("bf16"), at("int8")
    ours = float(wide.memory_byte_per_chip.weights)
    stated = 2.0 * g["stated_params"] / g["gpus"]
    model = bench.catalog.models[g["model"]]
    ffn = model.groups[0].ffn
    routed = g["batch"] * float(ffn.experts_per_token / ffn.experts)
    most = {fmt: _fits(bench, g, g["chip"], fmt, tp=g["tp"], pp=g["pp"], ep=g["tp"]) for fmt in ("bf16", "int8")}
    why = (
        f"{short(float(model.params) / g['pp'] / 1e9)}e9 parameters a node by the model card, {short(ours / GB)} GB a GPU "
        f"({short(float(narrow.memory_byte_per_chip.weights) / GB)} in 8 bit); the stated {short(g['stated_params'] / 1e9)}e9 would be "
        ""
        f"{short(stated / GB)} GB. A batch of {g['batch']} gives an expert {short(routed)}; at {g['isl'] + g['osl']} tokens of context "
        f"the 40 GB hold {numbers(most)} requests"
    )
    return Finding(ours=ours, why=why, cases={"the stated parameters": stated})


def kv_balloon(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given

    def used(context: float) -> Any:
        return bench.run(g["chip"], g["model"], isl=context, tp=g["tp"], pp=g["pp"], ep=g["tp"], format=g["format"], batch=g["batch"])

    ratios, fits = {}, {}
    for context in g["contexts"]:
        p = used(context).memory_byte_per_chip
        left = float(p.capacity - p.weights - p.reserve - p.activations)
        name = f"{context} tokens"
        ratios[name] = float(p.kv) / left
        fits[name] = g["batch"] / ratios[name]
    *shorter, longest = ratios
    why = f"cache of {g['batch']} requests over the memory left: {numbers(ratios)}; requests that fit: {numbers(fits)}"
    return Finding(ours=ratios[longest], why=why, cases={name: ratios[name] for name in shorter})


CHECKS = {
    "quantisation": quantisation,
    "etched-batch": etched_batch,
    "burned-in": burned_in,
    "tokens-1e6": tokens_1e6,
    "gpt4-100k-chips": gpt4_chips,
    "tree-search": tree_search,
    "mi300x-gpt4": mi300x,
    "gpt4-128": gpt4_128,
    "kv-balloon": kv_balloon,
}
