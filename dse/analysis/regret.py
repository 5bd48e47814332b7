"""How much dearer is a design made for one kind of work when it does another? And which design serves a mix of work best?

Costs are those of the result: every design in its best layout in every case. Regret is the cost over the least of any design, less one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

MEAN, MIX, WORST = (
    "least mean cost, each over its best",
    "least cost of the mix",
    "least worst regret",
)  # designs that are made for no single case


@dataclass(frozen=True)
class Regret:
    """Regret of chosen designs (rows) in every case (columns)."""

    rows: tuple[str, ...]  # what each design was chosen for
    designs: tuple[str, ...]
    cases: tuple[tuple[str, str], ...]  # model, workload
    values: np.ndarray  # (rows, cases) [1], inf where a design cannot do it


def regrets(costs: np.ndarray) -> np.ndarray:
    """Regret of every design in every case, array (designs, cases), of costs (inf: not feasible); nan in cases that nobody can do.

    >>> regrets(np.array([[1.0, 4.0], [2.0, 2.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    best = costs.min(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(best), costs / best - 1.0, np.nan)


def mixed_cost(costs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cost of a mix: weights times the costs of its cases, for every design; inf where it cannot do one of them.

    >>> mixed_cost(np.array([[1.0, 4.0], [2.0, np.inf]]), np.array([0.5, 0.5])).tolist()
    [2.5, inf]
    """
    return np.where(np.isfinite(costs).all(axis=1), np.where(np.isfinite(costs), costs, 0.0) @ weights, np.inf)


def _costs(ds: xr.Dataset, scenario: str, limit_s: float) -> tuple[np.ndarray, list[tuple[str, str]]]:
    at = ds.sel(scenario=scenario).sel(tpot_limit=limit_s, method="nearest")
    cost = at["usd_per_million_output_token"].where((at["feasible"] > 0) & (at["below_4_bit"] == 0), np.inf)
    cases = [(str(m), str(w)) for m in ds["model"].values for w in ds["workload"].values]
    return np.stack([cost.sel(model=m, workload=w).values for m, w in cases], axis=1), cases


def regret_of(ds: xr.Dataset, scenario: str, limit_s: float, weights: Mapping[str, float] | None = None) -> Regret | None:
    """Regret of the best design of every case in all the others, and of the two designs that suit them together; None without designs.

    Args:
        ds: Result of a study. scenario: Owner. limit_s: On the time per output token [s].
        weights: Shares of the workloads in a mix (None: none). Burned-in designs serve one model only and are left out.
    """
    among = (ds["status"].values == "hypothetical") & (ds["family"].values != "burned_in")
    costs, cases = _costs(ds, scenario, limit_s)
    mine = np.where(among[:, None], costs, np.inf)
    known = [j for j in range(len(cases)) if np.isfinite(mine[:, j]).any()]
    if not known:
        return None
    values = regrets(mine)
    names = ds["design"].values.astype(str)
    rows, chosen = [], []
    for j in known:
        rows.append(" / ".join(cases[j]))
        chosen.append(int(np.argmin(mine[:, j])))
    share = np.array([(weights or {}).get(cases[j][1], 1.0 if weights is None else 0.0) for j in known])
    share = share / share.sum()
    # a mix weighs costs as they are, as its search does; without one every case counts alike, however dear it is
    mean = (MEAN, mixed_cost(1.0 + values[:, known], share)) if weights is None else (MIX, mixed_cost(mine[:, known], share))
    worst = np.where(
        np.isfinite(values[:, known]).all(axis=1), np.max(np.where(np.isfinite(values[:, known]), values[:, known], 0.0), axis=1), np.inf
    )
    for name, score in (mean, (WORST, worst)):
        if np.isfinite(score).any():
            rows.append(name)
            chosen.append(int(np.argmin(score)))
    return Regret(tuple(rows), tuple(names[chosen]), tuple(cases), values[chosen])


def mix_of(ds: xr.Dataset, scenario: str, limit_s: float, model: str, weights: Mapping[str, float]) -> list[dict[str, str | float]]:
    """Families by the least cost of a mix that one design of theirs serves: family, design, cost [USD/Mtoken], the cheapest first.

    Args:
        model: Whose workloads are mixed. weights: Shares of the output tokens.
    """
    costs, cases = _costs(ds, scenario, limit_s)
    at = [cases.index((model, w)) for w in weights]
    mean = mixed_cost(costs[:, at], np.array(list(weights.values())))
    real = ds["status"].values == "hypothetical"
    rows: list[dict[str, str | float]] = []
    for family in dict.fromkeys(str(f) for f in ds["family"].values[real]):
        mine = np.where(real & (ds["family"].values == family), mean, np.inf)
        i = int(np.argmin(mine))
        if np.isfinite(mine[i]):
            rows.append({"family": family, "design": str(ds["design"].values[i]), "cost": float(mine[i])})
    return sorted(rows, key=lambda r: float(r["cost"]))


def into(ds: xr.Dataset, scenario: str, limit_s: float, weights: Mapping[str, float] | None = None) -> xr.Dataset:
    """The Dataset with ``regret(regret_row, model, workload)`` and the design of every row, at one owner and limit."""
    found = regret_of(ds, scenario, limit_s, weights)
    if found is None:
        return ds
    models, workloads = list(ds["model"].values), list(ds["workload"].values)
    table = np.full((len(found.rows), len(models), len(workloads)), np.nan)
    for j, (m, w) in enumerate(found.cases):
        table[:, models.index(m), workloads.index(w)] = found.values[:, j]
    out = ds.drop_dims("regret_row") if "regret_row" in ds.dims else ds
    out = out.assign_coords(regret_row=list(found.rows))
    out["regret_row"].attrs = {"units": "1", "better": "none", "long_name": "case or mix that the design was chosen for"}
    text = "cost over the least of any design in that case, less one (inf: cannot do it)"
    out["regret"] = (("regret_row", "model", "workload"), table, {"units": "1", "better": "lower", "long_name": text})
    out["regret_design"] = (
        "regret_row",
        np.array(found.designs, object),
        {"units": "1", "better": "none", "long_name": "design of the row"},
    )
    return out
