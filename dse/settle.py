"""How is a study of claims run? Best designs of the families from another result or a small search, every row settled, one Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dse.analysis import claims
from dse.analysis.claims.bench import EXISTING
from dse.catalog import Catalog
from dse.errors import InputError
from dse.provenance import attributes
from dse.questions import Winner, real_chips, shop_of
from dse.results import load
from dse.search.designs import build_block
from dse.search.shards import points_of
from dse.study import Study

if TYPE_CHECKING:
    import xarray as xr

HYPOTHETICAL = "hypothetical"


def known_designs(study: Study, catalog: Catalog, folder: Path = Path("reports")) -> list[claims.Candidate]:
    """Designs on the fronts of the result of ``designs_from``, built with the catalogue of now.

    Empty where there is no such result, where a family of the study has none, or where its design variables have changed since.
    """
    path = folder / study.designs_from / "result.nc"
    if not study.designs_from or not path.is_file():
        return []
    try:
        ds = load(path)
        found = {family: _front_designs(ds, family, study, catalog) for family in study.families}
    except (InputError, KeyError):
        return []
    return [c for designs in found.values() for c in designs] if all(found.values()) else []


def _front_designs(ds: xr.Dataset, family: str, study: Study, catalog: Catalog) -> list[claims.Candidate]:
    """Designs of a family on a front of the result: of the study's headline case, where the result has it."""
    front = ds["on_front"] > 0
    head = study.headline
    for dim, value in (("model", head.model), ("workload", head.workload), ("scenario", head.scenario)):
        if value in ds[dim].values:
            front = front.sel({dim: value})
    reached = front.any([d for d in front.dims if d != "design"]).values
    ours = (ds["family"].values == family) & (ds["status"].values == HYPOTHETICAL) & (ds["below_4_bit"].values < 1)
    names = [str(n) for n, v in ds.data_vars.items() if v.attrs.get("role") == "decision"]
    rows = np.flatnonzero(reached & ours)
    if not len(rows):
        return []
    shop = shop_of(family, study.families[family], catalog)
    own = [name for name in names if name in shop.space.names]
    values, _ = points_of(shop.space, [_decisions(ds, int(i), own) for i in rows])
    chips = build_block(shop, values).chip
    formats = tuple(f for f in study.layouts.formats if f in catalog.records["families"][family].meta["formats"])
    leaves, tree = jax.tree.flatten(chips)
    table = [np.broadcast_to(np.ravel(leaf), (len(rows),)).astype(float) for leaf in leaves]
    built = [jax.tree.unflatten(tree, [float(column[i]) for column in table]) for i in range(len(rows))]
    return [claims.Candidate(family, str(ds["chip"].values[row]), chip, formats) for row, chip in zip(rows, built, strict=True)]


def _decisions(ds: xr.Dataset, design: int, names: Sequence[str]) -> dict[str, Any]:
    """What a design decided; variables of other families are left out."""
    values = {name: ds[name].values[design] for name in names}
    kept = {name: str(v) if isinstance(v, str) else float(v) for name, v in values.items()}
    return {name: v for name, v in kept.items() if v != "" and v == v}


def candidates(winners: Sequence[Winner]) -> list[claims.Candidate]:
    """The designs that stand for their families; chips that exist are a family of their own."""
    return [
        claims.Candidate(w.design.family if w.design.status == HYPOTHETICAL else EXISTING, w.design.chip, w.chip, w.formats)
        for w in winners
        if not w.design.below_4_bit
    ]


def settled(
    study: Study,
    catalog: Catalog,
    designs: Sequence[claims.Candidate],
    added: Sequence[str],
    run: Mapping[str, Any],
    progress: Callable[[float, float, str], None],
) -> xr.Dataset:
    """The Dataset of a study of claims.

    Args:
        study, catalog: As read. designs: Of the families. added: Further chips that exist.
        run: What only the run knows (seed, counts, times).
        progress: Called with done, total and a word.

    Raises:
        InputError: a row that no check knows, or that lacks what its check needs.
    """
    progress(0, 1, "families")
    bench = claims.bench_of(study, catalog, [*designs, *candidates(real_chips(study, catalog, added))])
    rows = claims.settle_all(bench, progress)
    facts = attributes(study, catalog, study.families, run)
    facts["bibliography"] = dict(sorted({**facts["bibliography"], **_sources(study, catalog)}.items()))
    return claims.to_dataset(bench, rows, facts)


def _words(value: Any) -> list[str]:
    """Texts in a value of ``given``: itself, the entries of a list, the keys of a table."""
    return [v for v in (value if isinstance(value, list | dict) else [value]) if isinstance(v, str)]


def _sources(study: Study, catalog: Catalog) -> dict[str, dict[str, str]]:
    """Sources of the chips and models that the rows name."""
    named = {word for row in study.rows for value in row.given.values() for word in _words(value)}
    records = [catalog.records[kind][w] for w in named for kind in ("chips", "models") if w in catalog.records[kind]]
    keys = {q.source for record in records for q in record.values.values()}
    return {key: catalog.sources[key] for key in keys if key in catalog.sources}
