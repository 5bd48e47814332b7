"""What does a study ask of the search? Its cases, grids and shards, what a family is built with, and the chips of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dse.catalog import Catalog
from dse.catalog.host import plain_offload
from dse.catalog.silicon import build_family, build_range
from dse.catalog.workloads import ttft_limit_s
from dse.chips import FAMILIES
from dse.chips.common import NODES
from dse.evaluate import as_floats
from dse.results import Design
from dse.search import explore
from dse.search.designs import Questions, Shop, build_block, pad, tables
from dse.search.finalists import BLOCK
from dse.search.grid import Case, Grid
from dse.search.layouts import native_formats, why_nothing_fits
from dse.search.shards import points_of
from dse.space import space_of
from dse.study import Study
from dse.types import Chip, Prices, named_format


@dataclass(frozen=True)
class Shard:
    """One family in one class of formats."""

    label: str
    family: str
    formats: tuple[str, ...]
    below_4_bit: bool


@dataclass(frozen=True)
class Winner:
    """A chip that goes into the result, with the formats it may use."""

    design: Design
    chip: Chip
    formats: tuple[str, ...]


def is_narrow(fmt: str) -> bool:
    """Whether a weight format is below 4 bit: drawn apart, since it is not the same product."""
    return float(named_format(fmt).weight_byte) < 0.5


def shards_of(study: Study, catalog: Catalog) -> list[Shard]:
    """The shards of a study: each family, and once more for formats below 4 bit where the family takes them."""
    found = []
    for family in study.families:
        usable = [f for f in study.layouts.formats if f in catalog.records["families"][family].meta["formats"]]
        for narrow in (False, True):
            formats = tuple(f for f in usable if is_narrow(f) == narrow)
            if formats:
                found.append(Shard(family + ("_below_4_bit" if narrow else ""), family, formats, narrow))
    return found


def grid_of(study: Study, formats: Sequence[str]) -> Grid:
    """The layouts that a study tries."""
    t = study.layouts
    grid = Grid(tp=t.tp, dp=t.dp, pp=t.pp, ep=t.ep, batches=t.batch, formats=tuple(formats), max_chips=study.limits.max_chips)
    return replace(grid, worth=t.quality)


def questions_of(study: Study, catalog: Catalog) -> Questions:
    """Every model with every workload, put to every owner."""
    prices = tuple(as_floats(catalog.prices[s]) for s in study.scenarios)
    fixed: dict[str, Any] = {}
    if study.layouts.kv_offload is not None:
        fixed["offload"] = plain_offload(catalog, study.layouts.kv_offload)
    if study.layouts.redundant_experts is not None:
        fixed["copies_per_rank"] = float(study.layouts.redundant_experts)
    cases = []
    for model in study.models:
        for workload in study.workloads:
            own = ttft_limit_s(catalog.records["workloads"][workload])
            limit = study.limits.ttft.get(workload, own if own is not None else np.inf)
            asked = replace(catalog.workloads[workload], **fixed)
            cases.append(Case(model, workload, as_floats(catalog.models[model]), as_floats(asked), limit, prices))
    order = [(c.model_id, c.workload_id) for c in cases]
    mixes = [tuple((order.index((m, w)), weight) for w, weight in study.mix.items()) for m in study.models] if study.mix else []
    at, owner = order.index((study.headline.model, study.headline.workload)), study.scenarios.index(study.headline.scenario)
    return Questions(
        cases=tuple(cases),
        limits_s=tuple(study.limits.tpot),
        headline_case=at,
        headline_scenario=owner,
        mixes=tuple(mixes),
        objectives=study.objectives,
        variants=variants_of(cases[at], prices[owner], study.objectives),
    )


ENERGY_WEIGHTS = (3.0, 10.0, 30.0)  # of the price of energy
FIRST_TOKEN = (1 / 2, 1 / 4, 1 / 8)  # of the limit on the time to the first token


def variants_of(case: Case, owner: Prices, objectives: Sequence[str]) -> tuple[Case, ...]:
    """The headline case as those see it to whom a third objective matters more: what lies between them is the front of three."""
    if len(objectives) < 3:
        return ()
    if objectives[2] == "ttft_s":
        return tuple(replace(case, prices=(owner,), ttft_limit_s=case.ttft_limit_s * x) for x in FIRST_TOKEN)
    own = replace(owner, rents=0.0)
    dearer = [replace(own, energy_usd_per_j=own.energy_usd_per_j * x) for x in ENERGY_WEIGHTS]
    return (replace(case, prices=(*dearer, replace(own, energy_usd_per_j=1.0))),)


def shop_of(family: str, overrides: Mapping[str, Any], catalog: Catalog) -> Shop:
    """What a family's chips are built with: its space, processes, technology and constants."""
    record = catalog.records["families"][family]
    space = space_of(FAMILIES[family], build_range(record), overrides)
    nodes = [n if n in catalog.processes else space["node"].names[0] for n in NODES]
    constants = as_floats(build_family(record, kernels=catalog.constants[family]))
    processes = tuple(as_floats(catalog.processes[n]) for n in nodes)
    return Shop(family, space, processes, as_floats(catalog.technology), constants)


def row_of(tree: Any, i: int) -> Any:
    """One row of a block: the same pytree with plain numbers."""
    return jax.tree.map(lambda x: float(np.ravel(x)[i if np.size(x) > 1 else 0]), tree)


BODY = {
    "tdp_w": lambda c: c.tdp_w,
    "memory_capacity_byte": lambda c: c.memory.capacity_byte,
    "memory_bandwidth_byte_per_s": lambda c: 1.0 / c.memory.s_per_byte if c.memory.s_per_byte > 0 else np.nan,
    "sram_capacity_byte": lambda c: c.sram.capacity_byte,
    "weight_store_capacity_byte": lambda c: c.weight_store.capacity_byte,
    "peak_bf16_flop_per_s": lambda c: c.peak_flop_per_s.bf16,
    "peak_fp8_flop_per_s": lambda c: c.peak_flop_per_s.fp8,
    "unit_cost_usd_total": lambda c: c.unit_cost_usd,
}


def _body(chip: Chip) -> dict[str, float]:
    return {name: float(read(chip)) for name, read in BODY.items()}


def winners_of(
    shard: Shard,
    archive: explore.Archive,
    study: Study,
    catalog: Catalog,
    also: Sequence[Mapping[str, Any]] = (),
    served: np.ndarray | None = None,
) -> list[Winner]:
    """The designs in ``also``, and the cheapest chip of every cell that these do not serve already, built once more in double precision."""
    keep = explore.leaders(archive.costs if served is None else archive.costs[:, ~served], keep=1)
    points = archive.points[keep]
    if len(also):
        space = shop_of(shard.family, study.families[shard.family], catalog).space
        points = np.concatenate([points, points_of(space, also)[1]])
    if not len(points):
        return []
    built = built_winners(shard.family, points, shard.formats, shard.below_4_bit, study, catalog)
    return list({w.design.id: w for w in built}.values())


def built_winners(
    family: str, points: np.ndarray, formats: tuple[str, ...], below_4_bit: bool, study: Study, catalog: Catalog
) -> list[Winner]:
    """Chips at points of a family's unit cube, built in double precision."""
    shop = shop_of(family, study.families[family], catalog)
    values = shop.space.decode(points)
    values, _ = points_of(shop.space, [shop.space.named(values, i) for i in range(len(points))])
    parts = [{k: v[start : start + BLOCK] for k, v in values.items()} for start in range(0, len(points), BLOCK)]
    built = [jax.tree.map(np.asarray, build_block(shop, pad(part, BLOCK))) for part in parts]  # of one shape: nothing is compiled anew
    ids = shop.space.ids(values)
    found = []
    for i, identity in enumerate(ids):
        one = row_of(built[i // BLOCK], i % BLOCK)
        chip = one.chip
        label = catalog.records["families"][family].name
        suffix = "-3bit" if below_4_bit else ""
        design = Design(
            id=identity + suffix,
            family=family,
            chip=f"{label} {identity[:6]}{suffix}",
            status="hypothetical",
            below_4_bit=below_4_bit,
            decisions=shop.space.named(values, i),
            area_mm2=one.area_mm2,
            unit_cost_usd=one.cost_usd,
            body=_body(chip),
        )
        found.append(Winner(design, chip, formats))
    return found


def real_chips(study: Study, catalog: Catalog, added: Sequence[str]) -> list[Winner]:
    """Chips of the catalogue that are compared with the hypothetical ones."""
    found = []
    for identity in dict.fromkeys([*study.real_chips, *added]):
        record, chip = catalog.records["chips"][identity], as_floats(catalog.chips[identity])
        narrow = [f for f in study.layouts.formats if is_narrow(f)]
        stores_weights = float(chip.weight_store.capacity_byte) > 0
        formats = native_formats(chip, [f for f in study.layouts.formats if f not in narrow or stores_weights])
        integer_only = [f for f in formats if f.startswith("int") and not stores_weights and f not in ("int8", *study.layouts.widened)]
        usable = tuple(f for f in formats if f not in integer_only)
        family = str(record.meta.get("family", "other"))
        decisions = {"node": str(record.meta["node"])} if "node" in record.meta else {}
        status = str(record.meta.get("status", "existing"))
        status = "proposed" if status == "hypothetical" else status  # hypothetical is what the search built
        design = Design(identity, family, record.name, status, False, decisions, body=_body(chip))
        found.append(Winner(design, chip, usable))
    return found


def why_nothing(questions: Questions, winners: Sequence[Winner], study: Study) -> str:
    """Why a study has no feasible design at all, from the first chips that were tried."""
    case = questions.cases[questions.headline_case]
    loosest = max(questions.limits_s)
    lines = []
    for w in winners[:8]:
        grid = grid_of(study, w.formats)
        lines.append(f"{w.design.chip}: {why_nothing_fits(w.chip, case, grid, tables([case], grid)[case.model_id], loosest)}")
    return "no design meets the limits of the study\n" + "\n".join(lines or ["no chip was screened: raise the budget"])


def default_winners(study: Study, catalog: Catalog, shards: Sequence[Shard]) -> list[Winner]:
    """The default design of every shard, to say why nothing fits."""
    found = []
    for shard in shards:
        shop = shop_of(shard.family, study.families[shard.family], catalog)
        values, _ = points_of(shop.space, [shop.space.named(shop.space.defaults())])
        one = row_of(build_block(shop, values), 0)
        found.append(Winner(Design(shard.label, shard.family, f"default {shard.family}", "hypothetical"), one.chip, shard.formats))
    return found
