"""The discussion, first half: geometry, chip families against the GPU, masks, beams and what a design saves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dse.analysis.claims.bench import EXISTING, Bench, numbers, short
from dse.analysis.claims.verdict import Finding
from dse.catalog.silicon import build_family, build_range
from dse.chips import FAMILIES
from dse.chips.common import Built
from dse.evaluate import as_floats
from dse.glossary import label
from dse.space import space_of
from dse.study.claims import ClaimRow
from dse.types import FamilyConstants

MS, YEAR_S, YEAR_H, DAY_S = 1e3, 365.0 * 24.0 * 3600.0, 365.0 * 24.0, 24.0 * 3600.0


def family_constants(bench: Bench, family: str) -> FamilyConstants:
    """What a family fixes for all of its chips."""
    return as_floats(build_family(bench.catalog.records["families"][family], kernels=bench.catalog.constants[family]))


def built(bench: Bench, family: str, **changes: Any) -> Built:
    """The family's default design with some decisions changed."""
    space = space_of(FAMILIES[family], build_range(bench.catalog.records["families"][family]))
    values = space.from_named(changes)
    node = str(space.named({k: np.array([v]) for k, v in values.items()})["node"])
    process, technology = as_floats(bench.catalog.processes[node]), as_floats(bench.catalog.technology)
    return as_floats(FAMILIES[family].build(values, process, technology, family_constants(bench, family)))


def _edge_bandwidth(chip: Any) -> float:
    """Bandwidth if memory took the whole edge that it may have: that of the chip over the share of the edge it takes."""
    return float(1.0 / chip.memory.s_per_byte / (1.0 - chip.slack.beachfront))


def scaling_geometry(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    areas = [float(a) for a in g["areas_mm2"]]
    step = math.log(areas[1] / areas[0])

    def exponent(small: float, large: float) -> float:
        return math.log(large / small) / step

    flat = [built(bench, g["family"], die_area_mm2=a).chip for a in areas]
    bonded = [built(bench, g["stacked"], die_area_mm2=a).chip for a in areas]
    compute = exponent(*(float(c.peak_flop_per_s.bf16) for c in flat))
    edge = exponent(*(_edge_bandwidth(c) for c in flat))
    stacked = exponent(*(1.0 / float(c.memory.s_per_byte) for c in bonded))
    stacked_compute = exponent(*(float(c.peak_flop_per_s.bf16) for c in bonded))
    why = (
        f"from {short(areas[0])} to {short(areas[1])} mm2 the peak grows with area^{short(compute)} (edge blocks keep their size), the "
        "bandwidth at the edge with "
        f"area^{short(edge)}; DRAM bonded on top escapes: area^{short(stacked)} beside area^{short(stacked_compute)}"
    )
    return Finding(ours=edge, why=why)


def _at_limits(bench: Bench, family: str, against: str) -> dict[str, float]:
    """Cost of a family over another's at every limit; inf where only the other meets it, 0 where only the family does."""
    costs, found = bench.families, {}
    for limit in costs.limits_s:
        own, other = costs.least(family, limit), costs.least(against, limit)
        if math.isfinite(own) or math.isfinite(other):
            found["no limit" if math.isinf(limit) else f"{short(limit * MS)} ms"] = own / other if math.isfinite(own) else math.inf
    return found


def sram_chips(bench: Bench, row: ClaimRow) -> Finding:
    g, limit = row.given, bench.study.headline.tpot
    ratios = _at_limits(bench, g["family"], g["against"])
    ours = ratios[f"{short(limit * MS)} ms"]
    cheaper = [name for name, value in ratios.items() if value < 1.0]
    why = f"cost over that of the best GPU at each limit on time per token: {numbers(ratios)}; cheaper at {', '.join(cheaper) or 'none'}"
    why += _only(ratios)
    return Finding(ours=ours, why=why, cases=ratios)


def _only(ratios: Mapping[str, float]) -> str:
    alone = [name for name, value in ratios.items() if value == 0.0]
    return f" (at {', '.join(alone)} no GPU keeps the limit)" if alone else ""


def cim(bench: Bench, row: ClaimRow) -> Finding:
    g, limit = row.given, bench.study.headline.tpot
    ratios = _at_limits(bench, g["family"], g["against"])
    lives = {name: _cell_life_days(bench, name) for name in (g["cells"], g["other_cells"])}
    cheaper = [name for name, value in ratios.items() if value < 1.0]
    why = (
        f"cost over that of the best GPU, on assumed constants of the family: {numbers(ratios)}; cheaper at "
        f"{', '.join(cheaper) or 'none'}{_only(ratios)}. Non-volatile cells that "
        f"hold the cache, each written once a request, would last {numbers(lives)} days"
    )
    return Finding(ours=ratios[f"{short(limit * MS)} ms"], why=why, cases=ratios)


def _cell_life_days(bench: Bench, cells: str) -> float:
    """Days until cells that hold the cache are worn out: a full cache is written anew whenever a request follows another."""
    output = float(bench.catalog.workloads[bench.families.workload].output_tokens)
    return bench.value("memories", cells, "endurance") * output * bench.study.headline.tpot / DAY_S


def masks(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    sets = {n: float(bench.catalog.processes[n].mask_set_usd) for n in (*g["nodes"], g["old"])}
    family = family_constants(bench, g["family"])
    respin = family.special["custom_masks"] * float(bench.catalog.processes[g["node"]].mask_usd)
    nre = family.design_usd * float(bench.catalog.processes[g["node"]].design) + sets[g["node"]]
    why = (
        f"full sets in M USD: {numbers({n: v / 1e6 for n, v in sets.items()})}; a re-spin of {short(family.special['custom_masks'])} "
        f"metal masks at {g['node']} is "
        f"{short(respin / 1e6)} M USD, which is what $1M buys; with the design it is {short(nre / 1e6)} M USD, "
        f"{short(nre / g['chips'])} USD a chip over {g['chips']:,} chips"
    )
    return Finding(ours=sets[g["node"]], why=why, cases={n: sets[n] for n in g["nodes"]})


def ebeam(bench: Bench, row: ClaimRow) -> Finding:
    g = row.given
    chip = built(bench, g["family"], node=g["node"]).chip
    mask_set = float(bench.catalog.processes[g["node"]].mask_set_usd)

    def chips(layers: float, rate: float, tool_usd: float) -> float:
        yearly = tool_usd * g["discount"] / (1.0 - (1.0 + g["discount"]) ** -g["life_year"])
        wafer_usd = yearly / (YEAR_H * g["uptime"]) * layers / rate
        return mask_set / wafer_usd / float(chip.wafers)

    few, some, many = (float(x) for x in g["layers"])
    slow, usual, fast = (float(x) for x in g["wafer_per_hour"])
    cheap, price, dear = (float(x) for x in g["tool_usd"])
    ours = chips(some, usual, price)
    cases = {"slow, dear tool": chips(many, slow, dear), "fast, cheap tool": chips(few, fast, cheap)}
    why = (
        f"a mask set of {short(mask_set / 1e6)} M USD against {short(some)} layers written at {short(usual)} wafer/hour by tools of "
        f"{short(price / 1e6)} M USD: beams are "
        f"cheaper below {short(ours)} chips; over the wide assumptions {numbers(cases)}. Design cost is paid either way"
    )
    return Finding(ours=ours, why=why, cases=cases)


def update_layers(bench: Bench, row: ClaimRow) -> Finding:
    g, costs = row.given, bench.families
    limit = float(g["tpot_s"])
    other = costs.least(g["against"], limit)
    ratios = {f"{life:g} year": costs.least(g["family"], limit, f"life {life:g}") / other for life in g["lives_year"]}
    winner = costs.winner(g["family"], limit, f"life {g['life_year']:g}")
    why = f"cost over that of the best GPU at {short(limit * MS)} ms, by life of the model: {numbers(ratios)}"
    if winner is not None:
        chip, share = winner.chip, float(winner.chip.sram.capacity_byte / winner.chip.weight_store.capacity_byte)
        why += (
            f"; the design keeps {short(100 * share)} % of its weights' size in rewritable SRAM (adapters, last layers), and new metal "
            "for another model costs "
            f"{short(float(chip.nre_model_usd) / 1e6)} M USD a die kind"
        )
    return Finding(ours=ratios[f"{g['life_year']:g} year"], why=why, cases=ratios)


def train_spend(bench: Bench, row: ClaimRow) -> Finding:
    g, costs = row.given, bench.families
    limit = float(g["tpot_s"])
    bought = costs.least(EXISTING, limit, "street")
    made, winner = costs.least(g["family"], limit, "no_nre"), costs.winner(g["family"], limit, "no_nre")
    nre = math.inf if winner is None else float(winner.chip.nre_usd)
    saved = max(1.0 - made / bought, 0.0) * g["spend_usd"]
    ours = nre / saved if saved > 0 else math.inf
    tokens = nre / ((bought - made) / 1e6) if made < bought else math.inf
    why = (
        f"design and masks of {label(g['family'])} are {short(nre / 1e6)} M USD ({short(nre / g['claimed_usd'])} times the $1M), "
        f"{short(100 * nre / g['spend_usd'])} % of the spending; a token "
        f"costs {short(made)} instead of {short(bought)} USD a million, so {short(saved / 1e6)} M USD are saved; break-even at "
        f"{short(tokens)} tokens"
    )
    return Finding(ours=ours, why=why)


CHECKS = {
    "scaling-geometry": scaling_geometry,
    "sram-chips": sram_chips,
    "cim": cim,
    "mask-1M": masks,
    "ebeam": ebeam,
    "update-layers": update_layers,
    "train-spend": train_spend,
}
