"""What does the Dataset hold for one case? Plain NumPy views of it: cases, fronts, winners, regimes, cells, elasticities.

A case is (model, workload, scenario). Candidates are the designs that compete: hypothetical ones, or, where a study has none,
the chips that exist. Weights below 4 bit never win; they are drawn apart. Pure; nothing is written.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dse import glossary, pareto

COST = "usd_per_million_output_token"
SPEED = "interactivity_token_per_s"
THROUGHPUT = "output_token_per_s_per_chip"
OTHER = "other"


@dataclass(frozen=True)
class Case:
    """One question: a model, a workload, an owner's view (ids)."""

    model: str
    workload: str
    scenario: str


@dataclass(frozen=True)
class CaseView:
    """Arrays of one case: ``(design,)`` and ``(design, tpot_limit)``; ``data`` is the Dataset of the case."""

    case: Case
    data: xr.Dataset
    limits_s: NDArray[np.float64]
    ids: NDArray[np.str_]
    family: NDArray[np.str_]
    chip: NDArray[np.str_]
    status: NDArray[np.str_]
    feasible: NDArray[np.bool_]
    below_4_bit: NDArray[np.bool_]
    candidate: NDArray[np.bool_]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict, compare=False, repr=False)  # read so far

    def grid(self, name: str) -> NDArray[Any]:
        """A variable as an array (design, tpot_limit)."""
        if name not in self.arrays:
            self.arrays[name] = self.data[name].transpose("design", "tpot_limit").values
        return self.arrays[name]


def attr(ds: xr.Dataset, name: str, default: Any) -> Any:
    """An attribute, decoded from JSON where it is text of that kind."""
    value = ds.attrs.get(name, default)
    if isinstance(value, str) and value[:1] in "{[":
        return json.loads(value)
    return value


def headline(ds: xr.Dataset) -> tuple[Case, float]:
    """The case that the report leads with, and its limit on the time per output token [s]."""
    stated = attr(ds, "headline", {})
    case = Case(*(str(stated.get(dim, ds[dim].values[0])) for dim in ("model", "workload", "scenario")))
    limits = ds["tpot_limit"].values
    wanted = float(stated.get("tpot_limit", limits[len(limits) // 2]))
    return case, float(limits[np.argmin(np.abs(np.log(limits / wanted)))])


def cases(ds: xr.Dataset, scenario: str) -> list[Case]:
    """All pairs of model and workload for one owner's view, the headline's first."""
    first, _ = headline(ds)
    pairs = [(str(m), str(w)) for m in ds["model"].values for w in ds["workload"].values]
    pairs.sort(key=lambda p: (p[0] != first.model, p[1] != first.workload))
    return [Case(m, w, scenario) for m, w in pairs]


def scenarios(ds: xr.Dataset) -> list[str]:
    """Owner's views, the headline's first."""
    first, _ = headline(ds)
    return sorted((str(s) for s in ds["scenario"].values), key=lambda s: s != first.scenario)


def name_of(ds: xr.Dataset, key: str) -> str:
    """Name for people of a model, workload or scenario, from the attribute ``names``; else the id."""
    return str(attr(ds, "names", {}).get(key, key))


def case_name(ds: xr.Dataset, case: Case) -> str:
    """Model and workload of a case, for people."""
    return f"{name_of(ds, case.model)}, {name_of(ds, case.workload)}"


def view(ds: xr.Dataset, case: Case) -> CaseView:
    """The arrays of one case."""
    data = ds.sel(model=case.model, workload=case.workload, scenario=case.scenario)
    status = ds["status"].values.astype(str)
    family = ds["family"].values.astype(str)
    competing = status == "hypothetical"
    if not competing.any():
        competing = np.isin(status, ["existing", "announced"])
    grid = data["feasible"].transpose("design", "tpot_limit").values
    cost = data[COST].transpose("design", "tpot_limit").values
    feasible = (np.nan_to_num(grid.astype(float)) > 0) & np.isfinite(cost)
    narrow = data["below_4_bit"].broadcast_like(data["feasible"]) if "below_4_bit" in data else xr.zeros_like(data["feasible"])
    below = np.nan_to_num(narrow.transpose("design", "tpot_limit").values.astype(float)) > 0
    return CaseView(
        case,
        data,
        ds["tpot_limit"].values.astype(float),
        ds["design"].values.astype(str),
        family,
        ds["chip"].values.astype(str),
        status,
        feasible,
        below & feasible,
        competing & (family != OTHER),
    )


def limit_index(v: CaseView, limit_s: float) -> int:
    """Index of the limit nearest to ``limit_s``."""
    return int(np.argmin(np.abs(np.log(v.limits_s / limit_s))))


def families(ds: xr.Dataset) -> list[str]:
    """Families of the Dataset in the glossary's order, ``other`` left out."""
    present = set(ds["family"].values.astype(str))
    known = [f for f in glossary.load().families if f in present]
    return [f for f in [*known, *sorted(present - set(known))] if f != OTHER]


def cheapest(v: CaseView, limit: int, among: NDArray[np.bool_], below_4_bit: bool = False) -> int | None:
    """Index of the cheapest feasible design at a limit among a mask of designs, or None."""
    usable = among & v.feasible[:, limit] & (v.below_4_bit[:, limit] == below_4_bit)
    if not usable.any():
        return None
    return int(np.argmin(np.where(usable, v.grid(COST)[:, limit].astype(float), np.inf)))


def winners(v: CaseView, limit: int) -> list[tuple[str, int, float]]:
    """(family, design index, cost [USD/Mtoken]) of the best candidate of each family at a limit, cheapest first."""
    rows = []
    for family in sorted(set(v.family[v.candidate])):
        best = cheapest(v, limit, v.candidate & (v.family == family))
        if best is not None:
            rows.append((str(family), best, float(v.grid(COST)[best, limit])))
    return sorted(rows, key=lambda row: row[2])


def cheapest_existing(v: CaseView, limit: int) -> int | None:
    """Index of the cheapest chip that exists (not announced, not claimed) at a limit, or None."""
    return cheapest(v, limit, (v.status == "existing") & (v.family != OTHER))


@dataclass(frozen=True)
class Regime:
    """A run of limits that one family wins: speeds [token/s/user] from slowest to fastest, and their costs [USD/Mtoken]."""

    family: str
    slow_token_per_s: float
    fast_token_per_s: float
    cost_slow_usd: float
    cost_fast_usd: float


def regimes(v: CaseView) -> list[Regime]:
    """Who wins at which speed, from the loosest limit to the tightest; limits that nothing meets are left out."""
    found: list[Regime] = []
    for limit in np.argsort(-v.limits_s):
        ranking = winners(v, int(limit))
        if not ranking:
            continue
        family, _, cost = ranking[0]
        speed = 1 / v.limits_s[limit]
        if found and found[-1].family == family:
            last = found.pop()
            found.append(Regime(family, last.slow_token_per_s, speed, last.cost_slow_usd, cost))
        else:
            found.append(Regime(family, speed, speed, cost, cost))
    return found


def front(v: CaseView, among: NDArray[np.bool_], y: str, below_4_bit: bool = False) -> list[tuple[int, int]]:
    """(design, limit) indices of the non-dominated points of speed and ``y`` among a mask of designs, slowest first."""
    usable = among[:, None] & v.feasible & (v.below_4_bit == below_4_bit)
    designs, limits = np.nonzero(usable)
    if not len(designs):
        return []
    chosen = pareto.front(v.grid(SPEED)[usable].astype(float), v.grid(y)[usable].astype(float), glossary.better(SPEED), glossary.better(y))
    return [(int(designs[i]), int(limits[i])) for i in chosen]


def cell(v: CaseView, name: str, design: int, limit: int) -> Any:
    """One value of a case: a float, or text; None where it is blank or not there."""
    if name not in v.data:
        return None
    flat = name not in v.arrays and v.data[name].ndim == 1
    value = v.data[name].values[design] if flat else v.grid(name)[design, limit]
    if isinstance(value, str | bytes):
        return str(value) or None
    return None if not np.isfinite(value) else float(value)


def parts(v: CaseView, name: str, design: int, limit: int) -> dict[str, float]:
    """A breakdown of one cell: component name to value, blanks and zeros left out; empty where the variable is missing."""
    if name not in v.data:
        return {}
    variable = v.data[name]
    where = {k: i for k, i in {"design": design, "tpot_limit": limit}.items() if k in variable.dims}
    values = variable.isel(where).values.astype(float)
    return {str(c): float(x) for c, x in zip(v.data["component"].values, values, strict=True) if np.isfinite(x) and x != 0}


def decisions(ds: xr.Dataset) -> list[str]:
    """Names of the design variables."""
    return [str(n) for n, x in ds.data_vars.items() if x.attrs.get("role") == "decision" and x.dims == ("design",)]


def elasticities(ds: xr.Dataset, case: Case, family: str) -> dict[str, float]:
    """d ln cost / d ln parameter at the family's winner of a case; empty where there is none."""
    if "elasticity" not in ds:
        return {}
    table = ds["elasticity"].sel(model=case.model, workload=case.workload, scenario=case.scenario)
    dim = next(str(d) for d in table.dims if d != "parameter")
    stated = ds.attrs.get("elasticity_families")
    labels = json.loads(stated) if stated else [str(x) for x in ds[dim].values]
    if family not in labels:
        return {}
    values = table.isel({dim: labels.index(family)}).values.astype(float)
    return {str(p): float(e) for p, e in zip(ds["parameter"].values, values, strict=True) if np.isfinite(e) and e != 0}


def group_and_value(name: str) -> tuple[str, str]:
    """What an assumption belongs to, and which value it is: ``prices owner-2026: utilisation`` or ``owner-2026.utilisation``.

    >>> group_and_value("prices owner-2026: utilisation"), group_and_value("n3.wafer_usd")
    (('owner-2026', 'utilisation'), ('n3', 'wafer_usd'))
    """
    group, _, value = name.rpartition(": ") if ": " in name else name.rpartition(".")
    return group.removeprefix("prices").lstrip(" ."), value


def _slope(row: dict[str, Any], slopes: dict[str, float], case: Case) -> float | None:
    """Elasticity of the cost to an assumption: by the parameters that it moves, or else by its name."""
    if row.get("moves"):
        return sum(slopes.get(parameter, 0.0) * power for parameter, power in row["moves"].items()) or None
    owner, last = group_and_value(row["name"])
    return slopes.get(row["name"], slopes.get(last) if owner == case.scenario else None)


def _winner_format(ds: xr.Dataset, case: Case, family: str) -> str:
    """Weight format of the family's winner at the headline limit; empty where unknown."""
    v = view(ds, case)
    limit = limit_index(v, headline(ds)[1])
    design = cheapest(v, limit, v.candidate & (v.family == family))
    return "" if design is None else str(cell(v, "format_weights", design, limit) or "")


def effects(ds: xr.Dataset, case: Case, family: str, own: bool = False) -> dict[str, tuple[float, float]]:
    """For each assumption with an interval and an elasticity: relative change of the family's cost at its low and its high end.

    Rows that belong to another family, or to a weight format that the winner does not use, are left out. With ``own``, only what
    belongs to this family: the values that it does not share with others.
    """
    slopes, fmt = elasticities(ds, case, family), _winner_format(ds, case, family)
    found = {}
    for row in attr(ds, "assumptions", []):
        owner = row.get("family")
        slope, value = _slope(row, slopes, case), row.get("value") or 0
        foreign = owner not in (None, family) or (own and owner is None) or row.get("format", "") not in fmt
        if foreign or slope is None or not row.get("low") or not row.get("high") or value <= 0 or row["low"] <= 0:
            continue
        found[row["name"]] = ((row["low"] / value) ** slope - 1, (row["high"] / value) ** slope - 1)
    return found


def worst(ds: xr.Dataset, case: Case, family: str) -> tuple[float, int] | None:
    """Factor on a family's cost with all its own assumptions at their unfavourable ends at once (first order), and their number."""
    known = effects(ds, case, family, own=True)
    factor = math.prod(1 + max(low, high, 0.0) for low, high in known.values())
    return (factor, len(known)) if known else None


@dataclass(frozen=True)
class Evidence:
    """What the engine constants of the families rest on: families with fitted ones, families with assumed ones."""

    fitted: tuple[str, ...]
    assumed: tuple[str, ...]


def evidence(ds: xr.Dataset) -> Evidence:
    """Which families carry fitted engine constants and which assumed ones; both empty where the result does not say."""
    kinds: dict[str, set[str]] = {}
    for row in attr(ds, "assumptions", []):
        if str(row["name"]).startswith("constants ") and row.get("family"):
            kinds.setdefault(row["family"], set()).add(str(row.get("kind")))
    order = [f for f in families(ds) if f in kinds]
    return Evidence(tuple(f for f in order if "fit" in kinds[f]), tuple(f for f in order if "fit" not in kinds[f]))


def spread(ds: xr.Dataset, case: Case, family: str, own: bool = False) -> tuple[float, float, int] | None:
    """Factors below and above the winner's cost (first order, independent, 90 %) and how many values they rest on; None if none."""
    known = effects(ds, case, family, own)
    if not known:
        return None
    down = [min(math.log1p(a), math.log1p(b), 0) for a, b in known.values()]
    up = [max(math.log1p(a), math.log1p(b), 0) for a, b in known.values()]
    return math.exp(-math.hypot(*down)), math.exp(math.hypot(*up)), len(known)
