"""What does less of a third objective cost? The front of cost, time per token and energy (or the first token) in the headline case.

Every hypothetical chip of the result stands in the layouts that owners take who weigh the third objective more and more, and in those of
tighter limits on it; the money is the headline owner's everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dse import glossary
from dse.pareto import non_dominated
from dse.questions import Winner, grid_of
from dse.search.designs import Questions
from dse.search.finalists import Finalist, place
from dse.study import Study

if TYPE_CHECKING:
    import xarray as xr

DIM = "tradeoff"
LAYOUT = ("tp", "pp", "dp", "ep", "batch")


def with_tradeoff(ds: xr.Dataset, study: Study, questions: Questions, winners: Sequence[Winner]) -> xr.Dataset:
    """The Dataset with the points that no other of their family beats in all three objectives; as it is where a study has two."""
    chosen = [w for w in winners if w.design.status == "hypothetical" and not w.design.below_4_bit]
    if not questions.variants or not chosen:
        return ds
    case = questions.cases[questions.headline_case]
    owner = case.prices[questions.headline_scenario]
    finalists = [Finalist(w.chip, w.formats) for w in chosen]
    rows: list[dict[str, np.ndarray]] = []
    for variant in (replace(case, prices=(owner,)), *questions.variants):
        for p in place(variant, finalists, grid_of(study, ()), questions.limits_s, octave=True, owner=owner):
            keep = p.valid
            found = {n: np.broadcast_to(np.asarray(getattr(p.metrics, n)), keep.shape)[keep] for n in study.objectives}
            for name in LAYOUT:
                value = p.metrics.batch if name == "batch" else getattr(p.metrics.layout, name)
                found[name] = np.broadcast_to(np.asarray(1.0 if value is None else value, float), keep.shape)[keep]
            rows.append(found | {"who": p.who[keep], "format_weights": p.format_weights[keep].astype(str)})
    if not rows:
        return ds
    table = {n: np.concatenate([r[n] for r in rows]) for n in rows[0]}
    points = np.round(np.log(np.stack([table[n] for n in study.objectives], axis=1)), 9)  # rounded: one design met twice is one point
    _, once = np.unique(points, axis=0, return_index=True)
    family = np.array([w.design.family for w in chosen])[table["who"]]
    kept = [i for f in dict.fromkeys(family[once]) for at in [once[family[once] == f]] for i in at[non_dominated(points[at])]]
    kept.sort(key=lambda i: (family[i], points[i].tolist()))
    at = np.array(kept, int)
    ids = np.array([w.design.id for w in chosen], object)[table["who"][at]]
    plain = {"units": "1", "better": "none"}
    out = ds.assign({f"{DIM}_{n}": (DIM, table[n][at], glossary.attrs(n)) for n in study.objectives})
    out = out.assign({f"{DIM}_{n}": (DIM, table[n][at], {**plain, "long_name": f"{n} of a point of the front of three"}) for n in LAYOUT})
    out[f"{DIM}_design"] = (DIM, ids, {**plain, "long_name": "design of a point of the front of three"})
    out[f"{DIM}_family"] = (DIM, family[at].astype(object), {**plain, "long_name": "family of a point of the front of three"})
    out[f"{DIM}_format"] = (DIM, table["format_weights"][at].astype(object), {**plain, "long_name": "weight format of a point"})
    overall = non_dominated(points[at]).astype(float)
    out[f"{DIM}_overall"] = (DIM, overall, {**plain, "long_name": "1 where no point of any family is better in all three"})
    out.attrs["objectives"] = ",".join(study.objectives)
    return out
