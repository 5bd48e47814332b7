"""Do the figures hold from which this project started? Every row of a study of claims, computed with the model and judged by its own rule.

``settle_all`` gives the rows, ``to_dataset`` one Dataset (dimension ``row``) with what the figures of the report show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dse.analysis import demand
from dse.analysis.claims import block, essay, services, silicon
from dse.analysis.claims.bench import CALIBRATED, IDEAL, Bench
from dse.analysis.claims.families import Candidate, FamilyCosts, family_costs, owners_of
from dse.analysis.claims.verdict import VERDICTS, Finding, Settled, judge, settle, verdict
from dse.errors import InputError, closest
from dse.study.claims import ClaimRow

if TYPE_CHECKING:
    import xarray as xr

    from dse.catalog import Catalog
    from dse.study import Study

__all__ = [
    "CHECKS",
    "VERDICTS",
    "Bench",
    "Candidate",
    "FamilyCosts",
    "Finding",
    "Settled",
    "bench_of",
    "judge",
    "settle_all",
    "to_dataset",
    "verdict",
]

CHECKS: dict[str, Callable[[Bench, ClaimRow], Finding]] = {**essay.CHECKS, **block.CHECKS, **silicon.CHECKS, **services.CHECKS}


def bench_of(study: Study, catalog: Catalog, candidates: Sequence[Candidate]) -> Bench:
    """Everything that the checks ask: the catalogue, and the costs of the families' best designs for the study's headline case."""
    owners = owners_of(study, catalog)
    costs = family_costs(candidates, owners, study, catalog, study.headline.workload, study.limits.tpot)
    return Bench(catalog, study, costs)


def problems_of(rows: Sequence[ClaimRow]) -> list[str]:
    """Rows that no check knows."""
    return [f"rows — found id '{r.id}', allowed one of {', '.join(CHECKS)}{closest(r.id, CHECKS)}" for r in rows if r.id not in CHECKS]


def settle_all(bench: Bench, progress: Callable[[float, float, str], None] = lambda *_: None) -> list[Settled]:
    """All rows of the bench's study, in its order.

    Raises:
        InputError: a row that no check knows, or whose ``given`` lacks something or names what the catalogue does not have.
    """
    rows = bench.study.rows
    wrong = problems_of(rows)
    if wrong:
        raise InputError(wrong)
    found = []
    for i, row in enumerate(rows):
        progress(i, len(rows), row.id)
        try:
            found.append(settle(CHECKS[row.id](bench, row), row))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{bench.study.label}: rows.{row.id}.given — {type(error).__name__} {error}, allowed what its check needs"
            ) from error
    return found


def _row_variables(settled: Sequence[Settled]) -> dict[str, Any]:
    import numpy as np

    def words(values: Sequence[str]) -> Any:
        return ("row", np.array(values, object))

    def figures(values: Sequence[float | None]) -> Any:
        return ("row", np.array([np.nan if v is None else v for v in values], float))

    texts = {
        name: words([getattr(s.row, name) for s in settled]) for name in ("document", "system", "statement", "unit", "relation", "how")
    }
    numbers = {name: figures([getattr(s.row, name) for s in settled]) for name in ("claim", "rounding", "tolerance")}
    return {
        **texts,
        **numbers,
        "ours": figures([s.finding.ours for s in settled]),
        "ratio": figures([s.ratio for s in settled]),
        "calibrated": figures([s.finding.calibrated for s in settled]),
        "verdict": words([s.verdict for s in settled]),
        "why": words([s.finding.why for s in settled]),
    }


LONG_NAMES = {
    "claim": "claimed figure, in the row's unit",
    "ours": "figure of the model, in the row's unit",
    "ratio": "figure of the model over the claim",
    "calibrated": "figure with calibrated constants, beside an ideal one",
    "verdict": "holds, holds within tolerance, wrong, or depends",
    "why": "reason in one line, with figures",
    "mfu": "model FLOP utilisation of a decoding step",
    "cost": "least cost of a token",
    "requests": "requests at the same time at which a token costs twice the least of its family",
    "designs": "designs that stand for a family",
}


def _needed(costs: FamilyCosts, family: str) -> float:
    """Requests at the same time at which a family's token costs twice its least, without a limit on speed."""
    import numpy as np

    curve = np.minimum.accumulate(costs.curve(family))
    met = np.isfinite(curve)
    return demand.batch_within(np.array(costs.batches)[met], curve[met]) if met.any() else float("nan")


def to_dataset(bench: Bench, settled: Sequence[Settled], attributes: Mapping[str, Any]) -> xr.Dataset:
    """The Dataset of a study of claims: dimension ``row``, and what its figures show.

    ``mfu(constants, load)``: utilisation of the essay's system by batch. ``cost(family, limit, batch)``: least cost of a token on the
    family's best designs [USD per million output tokens], inf where nothing is feasible; ``requests(family)``: demand for twice the floor.
    """
    import json

    import numpy as np
    import xarray as xr

    given = next(r.given for r in bench.study.rows if r.id in ("util-20pct", "util-0.2pct"))
    loads = [2.0**k for k in range(13)]
    mfu = [[float(bench.run(given["chip"], given["model"], c, tp=given["tp"], batch=b).mfu) for b in loads] for c in (IDEAL, CALIBRATED)]
    costs = bench.families
    table = [[costs.curve(f, limit) for limit in costs.limits_s] for f in costs.families]
    data: dict[str, Any] = {
        **_row_variables(settled),
        "mfu": (("constants", "load"), np.array(mfu)),
        "cost": (("family", "limit", "batch"), np.array(table)),
        "requests": ("family", np.array([_needed(costs, f) for f in costs.families])),
        "designs": ("family", np.array([float(sum(c.family == f for c in costs.candidates)) for f in costs.families])),
    }
    coords = {
        "row": [s.row.id for s in settled],
        "constants": [IDEAL, CALIBRATED],
        "load": loads,
        "family": list(costs.families),
        "limit": list(costs.limits_s),
        "batch": list(costs.batches),
    }
    ds = xr.Dataset(data, coords=coords)
    units = {"mfu": "1", "ratio": "1", "cost": "USD/Mtoken", "limit": "s"}
    for name in ds.variables:
        ds[name].attrs = {"long_name": LONG_NAMES.get(str(name), str(name)), "units": units.get(str(name), "")}
    cases = {s.row.id: dict(s.finding.cases) for s in settled if s.finding.cases}
    service = next((r.given for r in bench.study.rows if r.id == "users-144k"), {})
    all_attributes = {**attributes, "kind": "claims", "cases": cases, "use_s_per_day": float(service.get("use_s_per_day", 0.0))}
    ds.attrs = {k: v if isinstance(v, (str, int, float)) else json.dumps(v, sort_keys=True) for k, v in all_attributes.items()}
    return ds
