"""How are the analyses of a study run? Chips bred for their questions join the result, then each analysis adds its variables to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers import KINDS, Ground, prefixed
from dse.analysis.niches import breed
from dse.analysis.units import EXISTING, HYPOTHETICAL, Known
from dse.catalog import Catalog
from dse.evaluate import as_floats
from dse.questions import Winner, built_winners, grid_of, is_narrow, questions_of, shop_of
from dse.search.designs import build_block
from dse.search.grid import Case
from dse.search.shards import points_of
from dse.study import Study
from dse.study.analyses import named
from dse.types import Chip

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[float, float, str], None]


def wide_formats(study: Study) -> tuple[str, ...]:
    """Formats of 4 bit and more: narrower weights are not the same product."""
    return tuple(f for f in study.layouts.formats if not is_narrow(f))


def headline_case(study: Study, catalog: Catalog) -> Case:
    """The headline case, of its owner alone."""
    questions = questions_of(study, catalog)
    case = questions.cases[questions.headline_case]
    return replace(case, prices=(case.prices[questions.headline_scenario],))


def ground_of(study: Study, catalog: Catalog, winners: Sequence[Winner], result: xr.Dataset | None = None) -> Ground:
    """Everything that the analyses of a study ask: chips that need weights below 4 bit are left out."""
    owners = dict.fromkeys([*study.scenarios, *(p for a in study.analyses for p in named(a).get("prices", ()))])
    chosen = [w for w in winners if not w.design.below_4_bit and (w.design.status in (HYPOTHETICAL, EXISTING))]
    by_id = {w.design.id: w for w in chosen}

    def rebuild(known: Known, other: Catalog) -> Chip:
        design = by_id[known.id].design
        if design.status != HYPOTHETICAL:
            return as_floats(other.chips[design.id])
        shop = shop_of(design.family, study.families[design.family], other)
        values, _ = points_of(shop.space, [design.decisions])
        return build_block(shop, values).chip

    def family(w: Winner) -> str:
        return w.design.family if w.design.status == HYPOTHETICAL else EXISTING

    return Ground(
        study=study,
        catalog=catalog,
        known=tuple(
            Known(w.design.id, family(w), w.design.chip, w.chip, _wide(w.formats), w.design.decisions) for w in chosen if _wide(w.formats)
        ),
        case=headline_case(study, catalog),
        prices={p: as_floats(catalog.prices[p]) for p in owners},
        grid=replace(grid_of(study, wide_formats(study))),
        spaces={f: shop_of(f, study.families[f], catalog).space for f in study.families},
        result=result,
        rebuild=rebuild,
    )


def _wide(formats: Sequence[str]) -> tuple[str, ...]:
    return tuple(f for f in formats if not is_narrow(f))


def bred(study: Study, catalog: Catalog, winners: Sequence[Winner], seed: int, progress: Progress) -> list[Winner]:
    """Chips that are best for the questions of the study's analyses, without those that are there already."""
    ground = ground_of(study, catalog, winners)
    asked = [(a, list(KINDS[a.kind].niches(ground, a.given))) for a in study.analyses if a.given.get("bred")]
    found: dict[str, Winner] = {}
    for k, (analysis, niches) in enumerate(asked):
        wanted = [analysis.given["family"]] if "family" in analysis.given else list(study.families)
        for i, family in enumerate(wanted):
            progress(k + i / len(wanted), len(asked), f"{analysis.name}: {family}")
            shop = shop_of(family, study.families[family], catalog)
            formats = tuple(f for f in wide_formats(study) if f in catalog.records["families"][family].meta["formats"])
            own = [w.design.decisions for w in winners if w.design.family == family and w.design.status == HYPOTHETICAL]
            start = points_of(shop.space, own)[1] if own else np.empty((0, shop.space.dimension))
            grid = replace(ground.grid.thinned(), formats=formats)
            points = breed(shop, niches, grid, start, int(analysis.given["bred"]), seed, analysis.name)
            if len(points):
                found |= {w.design.id: w for w in built_winners(family, points, formats, False, study, catalog)}
    known = {w.design.id for w in winners}
    return [w for identity, w in found.items() if identity not in known]


def answered(ds: xr.Dataset, study: Study, catalog: Catalog, winners: Sequence[Winner], progress: Progress) -> xr.Dataset:
    """The Dataset with the variables of every analysis, under its name, and the list of analyses as an attribute."""
    if not study.analyses:
        return ds
    ground, listed = ground_of(study, catalog, winners, ds), []
    for i, analysis in enumerate(study.analyses):
        progress(i, len(study.analyses), analysis.name)
        found = KINDS[analysis.kind].answer(ground, analysis.given)
        facts: Mapping[str, Any] = {str(k): v for k, v in found.attrs.items()}
        listed.append({"kind": analysis.kind, "name": analysis.name, "title": analysis.title, "facts": facts})
        ds = ds.merge(prefixed(found, analysis), combine_attrs="override")
    ds.attrs["analyses"] = json.dumps(listed)
    if study.headline.analysis:
        ds.attrs["lead"] = study.headline.analysis
    return ds
