"""At which value of an assumption does the ranking change? Root finding on all assumptions at once, designs and layouts of the front.

A lever is a group of catalogue numbers that are multiplied together (all mask prices, say). For many multiples of every lever the least
cost of every competitor is taken anew (``compare``); where the sign of a lead changes, the bracket is cut until the multiple is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from dse.analysis.compare import Competitor, Question, costs_of
from dse.analysis.inputs import Factor, Place, is_uncertain, with_values
from dse.catalog import Catalog

if TYPE_CHECKING:
    import xarray as xr

# Levers with names of their own: (kind, id, field) patterns of what is multiplied together.
LEVERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "mask cost": (("processes", "*", "mask_set"), ("processes", "*", "mask")),
    "design cost": (("families", "*", "design"),),
    "volume of a chip": (("prices", "*", "volume"),),
    "volume of a model": (("prices", "*", "model_volume"),),
    "model lifetime": (("prices", "*", "model_life"),),
    "server lifetime": (("prices", "*", "life"),),
    "utilisation": (("prices", "*", "utilisation"),),
    "discount rate": (("prices", "*", "discount"),),
    "cost multiple": (("prices", "*", "cost_multiple"),),
    "HBM price": (("memories", "hbm*", "price"),),
    "HBM bandwidth": (("memories", "hbm*", "bandwidth"),),
    "bonded DRAM bandwidth": (("memories", "stacked-dram", "bandwidth"),),
    "bonded DRAM price": (("memories", "stacked-dram", "price"),),
    "SRAM density": (("processes", "*", "sram"),),
    "logic density": (("processes", "*", "density"),),
    "defect density": (("processes", "*", "defects"),),
    "wafer price": (("processes", "*", "wafer"),),
    "energy price": (("sites", "*", "electricity"),),
    "building price": (("sites", "*", "facility"),),
    "server, network, storage": (("networks", "*", "server"), ("networks", "*", "network"), ("networks", "*", "storage")),
    "link latency": tuple(("constants", "*", f"{c}.*_s") for c in ("all_reduce", "all_gather", "dispatch", "combine", "point_to_point")),
    "time of a layer": (("families", "*", "layer"),),
    "energy of a FLOP": (("families", "*", "flop"),),
    "heat limit": (("technology", "power", "heat_*"),),
}
REACH = 100.0  # multiples from 1 / REACH to REACH are tried
COARSE = 17  # multiples in the first pass
ROWS = 256  # of one compiled call: they are often fewer than samples of a distribution
CUTS = 2  # passes that cut the brackets
FULL = 0.999  # of one, that shares may reach: at one some formulas have a pole
LEAD_HELD = 1e-9  # a lead below this logarithm counts as a tie


@dataclass(frozen=True)
class Lever:
    """Numbers that are multiplied together; ``most``: the largest multiple that keeps shares below one."""

    name: str
    places: tuple[Place, ...]
    low: float  # multiples of the stated interval (of the first number); nan where there is none
    high: float
    most: float


@dataclass(frozen=True)
class Flip:
    """Where the ranking changes: the multiple of a lever nearest to 1 (in logarithm) in one direction, and who leads beyond it."""

    lever: str
    multiple: float
    leader: str  # beyond the flip
    inside: bool  # the stated interval reaches it


def _matches(place: Place, pattern: tuple[str, str, str]) -> bool:
    return all(fnmatchcase(a, b) for a, b in zip(place, pattern, strict=True))


def _lever(catalog: Catalog, name: str, places: Sequence[Place]) -> Lever | None:
    quantities = [(p, catalog.records[p[0]][p[1]].values[p[2]]) for p in places]
    quantities = [(p, q) for p, q in quantities if q.value > 0]
    if not quantities:
        return None
    uncertain = next((q for _, q in quantities if is_uncertain(q)), None)
    low = uncertain.low / uncertain.value if uncertain is not None and uncertain.low is not None else np.nan
    high = uncertain.high / uncertain.value if uncertain is not None and uncertain.high is not None else np.nan
    shares = [q.value for _, q in quantities if q.unit == "1" and q.high is not None and q.high <= 1]
    most = min([REACH, *(FULL / s for s in shares)])
    return Lever(name, tuple(p for p, _ in quantities), float(low), float(high), float(most))


def named_levers(catalog: Catalog, records: Sequence[tuple[str, str]]) -> list[Lever]:
    """The levers of LEVERS, over the files of a study ((kind, id))."""
    known = [(k, i, n) for k, i in records for n in catalog.records[k][i].values if not n.startswith("range.")]
    found = [_lever(catalog, name, [p for p in known if any(_matches(p, x) for x in patterns)]) for name, patterns in LEVERS.items()]
    return [x for x in found if x]


def factor_levers(catalog: Catalog, factors: Sequence[Factor]) -> list[Lever]:
    """One lever for every uncertain number."""
    return [x for f in factors if (x := _lever(catalog, f.name, f.places))]


# --- costs at multiples --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Where the ranking is looked at: who competes (each side: its cheapest counts), in which case, for which owner, at which limit."""

    sides: Mapping[str, Sequence[Competitor]]
    question: Question
    scenario: int
    limit: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sides)


def multiplied(catalog: Catalog, rows: Sequence[Mapping[Lever, float]], n: int) -> Catalog:
    """The catalogue with levers multiplied row by row: values are columns (n, 1), those of the last rows as stated."""
    factors: dict[Place, np.ndarray] = {}
    for i, row in enumerate(rows):
        for lever, multiple in row.items():
            for p in lever.places:
                factors.setdefault(p, np.ones(n))[i] *= multiple
    return with_values(catalog, {(k, i, x): (catalog.records[k][i].values[x].value * f)[:, None] for (k, i, x), f in factors.items()})


def costs_at(setting: Setting, catalog: Catalog, rows: Sequence[Mapping[Lever, float]]) -> np.ndarray:
    """Least cost of every side when levers are multiplied: array (sides, rows) [USD/Mtoken]; every row says which levers, by how much."""
    found = []
    for start in range(0, len(rows), ROWS):
        block = list(rows[start : start + ROWS])
        drawn = multiplied(catalog, block, ROWS)
        costs = [
            np.min([costs_of(c, setting.question, drawn, ROWS)[setting.scenario, setting.limit] for c in side], axis=0)
            for side in setting.sides.values()
        ]
        found.append(np.stack(costs)[:, : len(block)])
    return np.concatenate(found, axis=1) if found else np.empty((len(setting.sides), 0))


def lead(costs: np.ndarray, leader: int, rivals: Sequence[int]) -> np.ndarray:
    """Logarithm of the cheapest rival's cost over the leader's; inf where no rival is feasible, -inf where the leader is not."""
    best = costs[list(rivals)].min(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(best) - np.log(costs[leader])
    return np.where(np.isfinite(costs[leader]), np.where(np.isfinite(best), found, np.inf), -np.inf)


Lead = Callable[[Sequence[Mapping[Lever, float]]], tuple[np.ndarray, np.ndarray]]  # rows to leads, and who is cheapest


@dataclass
class Costs:
    """Least costs of every side, each row of multiples computed once, whoever asks."""

    setting: Setting
    catalog: Catalog
    known: dict[frozenset[tuple[Lever, float]], np.ndarray] = field(default_factory=dict)

    def at(self, rows: Sequence[Mapping[Lever, float]]) -> np.ndarray:
        """``costs_at``."""
        keys = [frozenset(r.items()) for r in rows]
        new = {k: r for k, r in zip(keys, rows, strict=True) if k not in self.known}
        self.known.update(zip(new, costs_at(self.setting, self.catalog, list(new.values())).T, strict=True))
        return np.stack([self.known[k] for k in keys], axis=1)


def leads(known: Costs, leader: str, rivals: Sequence[str]) -> Lead:
    """The lead as a function of rows of multiples; with it, position of the cheapest of leader and rivals."""
    names = known.setting.names
    one, others = names.index(leader), [names.index(r) for r in rivals]

    def function(rows: Sequence[Mapping[Lever, float]]) -> tuple[np.ndarray, np.ndarray]:
        costs = known.at(rows)
        among = [one, *others]
        return lead(costs, one, others), np.array(among)[costs[among].argmin(axis=0)]

    return function


def flips(
    function: Lead,
    levers: Sequence[Lever],
    names: Sequence[str],
    bases: Sequence[Mapping[Lever, float]] | None = None,
    points: int = COARSE,
) -> list[list[Flip]]:
    """The multiple at which the lead changes sign first, in each direction of every lever: for each lever no, one or two flips.

    Args:
        function: ``leads``. levers: What to turn, one at a time. names: Of the sides.
        bases: For each lever, multiples of others that hold throughout. points: Multiples tried in a direction at first.
    """
    held = [{} for _ in levers] if bases is None else list(bases)
    jobs = [(k, np.geomspace(1.0, end, points)) for k, lever in enumerate(levers) for end in (1 / REACH, lever.most) if end != 1.0]
    values, _ = function([{**held[k], levers[k]: float(x)} for k, grid in jobs for x in grid])
    brackets = []
    for (k, grid), line in zip(jobs, values.reshape(len(jobs), points), strict=True):
        at = _change(line)
        if at is not None and abs(line[0]) > LEAD_HELD:
            brackets.append((k, float(grid[at]), float(grid[at + 1])))
    leaders: list[str] = []
    for _ in range(CUTS if brackets else 0):
        grids = [np.geomspace(a, b, COARSE) for _, a, b in brackets]
        values, who = function([{**held[k], levers[k]: float(x)} for (k, _, _), grid in zip(brackets, grids, strict=True) for x in grid])
        lines, whos = values.reshape(-1, COARSE), who.reshape(-1, COARSE)
        ats = [_change(line) for line in lines]
        found = [COARSE - 2 if at is None else at for at in ats]
        leaders = [names[int(w[at + 1])] for w, at in zip(whos, found, strict=True)]
        brackets = [(k, float(g[at]), float(g[at + 1])) for (k, _, _), g, at in zip(brackets, grids, found, strict=True)]
    out: list[list[Flip]] = [[] for _ in levers]
    for (k, a, b), leader in zip(brackets, leaders, strict=True):
        x = float(np.sqrt(a * b))
        out[k].append(Flip(levers[k].name, x, leader, bool(levers[k].low <= x <= levers[k].high)))
    return out


def _change(line: np.ndarray) -> int | None:
    """Position before the first change of sign."""
    changed = np.flatnonzero(np.sign(line[1:]) != np.sign(line[0]))
    return int(changed[0]) if len(changed) else None


def nearest(found: Sequence[Flip]) -> Flip | None:
    """The flip whose multiple is nearest to 1."""
    return min(found, key=lambda f: abs(np.log(f.multiple)), default=None)


def line_of(function: Lead, first: Lever, second: Lever, names: Sequence[str], multiples: Sequence[float]) -> list[float]:
    """Break-even of a pair: for multiples of one lever, the nearest multiple of another at which the ranking changes (nan: none)."""
    found = flips(function, [second] * len(multiples), names, [{first: float(x)} for x in multiples])
    return [n.multiple if (n := nearest(f)) else float("nan") for f in found]


def moving(function: Lead, levers: Sequence[Lever], least: float = 1e-4) -> list[Lever]:
    """Levers that move the lead at all, if multiplied or divided by ten."""
    rows = [{lever: min(10.0, lever.most) if up else 0.1} for lever in levers for up in (True, False)]
    (base,), values = function([{}])[0], function(rows)[0].reshape(-1, 2)
    return [lever for lever, line in zip(levers, values, strict=True) if not (np.abs(line - base) < least).all()]


def slope(function: Lead, lever: Lever, multiple: float, step: float) -> float:
    """Derivative of the lead by the logarithm of a lever, by central differences of costs with layouts chosen anew."""
    (up, down), _ = function([{lever: multiple * np.exp(s * step)} for s in (1, -1)])
    return float((up - down) / (2 * step))


# --- the derivative at an optimum ------------------------------------------------------------------------------------------------


def envelope(logs: Callable[[float, float], tuple[float, float]], held: bool, step: float = 1e-4) -> float:
    """d ln (optimal cost) / d ln (lever) by the envelope theorem: the design stays, and the limit's multiplier prices what it lost.

    Args:
        logs: (logarithm of the lever's multiple, logarithm of the batch over its own) to logarithms of cost and of time per token, for the
            optimal design and layout. held: Whether the limit on the time per token holds: then the batch pays for lost time. step: Of the
            central differences.
    """

    def slopes(x: float, b: float) -> tuple[float, float]:
        up, down = logs(x, b), logs(-x, -b)
        return (up[0] - down[0]) / (2 * step), (up[1] - down[1]) / (2 * step)

    by_lever, by_batch = slopes(step, 0.0), slopes(0.0, step)
    multiplier = by_batch[0] / by_batch[1] if held else 0.0  # cost for a per cent of time, at most 0
    return by_lever[0] - multiplier * by_lever[1]


# --- into the Dataset ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """One comparison whose flips were looked for: the leader, against whom, and what was found."""

    against: str  # "families" or "existing"
    leader: str
    levers: tuple[Lever, ...]
    found: tuple[tuple[Flip, ...], ...]  # for each lever
    multiples: np.ndarray  # of the curves
    curves: np.ndarray  # (levers, multiples) lead
    pair: tuple[str, str] | None = None
    line: tuple[tuple[float, float], ...] = ()  # break-even of the pair, multiples of both
    rising: bool = False  # whether the lead rises with the pair's second lever


def ranking(known: Costs, against: str, leader: str, rivals: Sequence[str], named: Sequence[Lever], others: Sequence[Lever]) -> Ranking:
    """All flips of one comparison: named levers with their curves, then every single number that moves the lead."""
    function, names = leads(known, leader, rivals), known.setting.names
    alone = {lever.places: lever for lever in moving(function, others)}
    single = [x for places, x in alone.items() if places not in {lever.places for lever in named}]
    levers = [*named, *single]
    found = [*flips(function, named, names), *flips(function, single, names, points=9)]
    multiples = np.geomspace(0.1, 10.0, 13)
    rows = [{lever: float(min(x, lever.most))} for lever in named for x in multiples]
    curves = function(rows)[0].reshape(len(named), -1)
    best = sorted((n for f in found[: len(named)] if (n := nearest(f))), key=lambda f: abs(np.log(f.multiple)))[:2]
    pair: tuple[str, str] | None = None
    line: tuple[tuple[float, float], ...] = ()
    if len(best) == 2:
        one, two = (next(x for x in named if x.name == f.lever) for f in best)
        xs = [x for x in np.geomspace(1 / 5, 5, 9) if x <= one.most]
        pair = (one.name, two.name)
        line = tuple(zip(map(float, xs), line_of(function, one, two, names, xs), strict=True))
    rising = bool(pair and next(f for f in best if f.lever == pair[1]).multiple < 1)  # the lead is lost below one
    return Ranking(against, leader, tuple(levers), tuple(map(tuple, found)), multiples, curves, pair, line, rising)


def into(ds: xr.Dataset, rankings: Sequence[Ranking]) -> xr.Dataset:
    """The Dataset with the flip table (``flip_multiple``), the leads over multiples of the named levers, and the pairs."""
    levers = list(dict.fromkeys(lever.name for r in rankings for lever in r.levers))
    against, way = [r.against for r in rankings], ["down", "up"]
    multiple = np.full((len(against), len(levers), 2), np.nan)
    leader = np.full(multiple.shape, "", object)
    inside = np.zeros(multiple.shape)
    for i, r in enumerate(rankings):
        for lever, found in zip(r.levers, r.found, strict=True):
            for f in found:
                at = (i, levers.index(lever.name), int(f.multiple > 1))
                multiple[at], leader[at], inside[at] = f.multiple, f.leader, float(f.inside)
    curves = np.full((len(against), len(levers), len(rankings[0].multiples)), np.nan)
    ends = np.full((len(levers), 2), np.nan)
    for i, r in enumerate(rankings):
        for k, lever in enumerate(r.levers):
            ends[levers.index(lever.name)] = lever.low, lever.high
            if k < len(r.curves):
                curves[i, levers.index(lever.name)] = r.curves[k]
    drop = [d for d in ("against", "lever", "way", "multiple") if d in ds.dims]
    out = ds.drop_dims(drop).assign_coords(against=against, lever=levers, way=way, multiple=rankings[0].multiples)
    plain = {"units": "1", "better": "none"}
    for name, text in (
        ("against", "whom the leader is compared with"),
        ("lever", "what is multiplied"),
        ("way", "direction"),
        ("multiple", "of a lever"),
    ):
        out[name].attrs = plain | {"long_name": text}
    dims = ("against", "lever", "way")
    out["flip_multiple"] = (
        dims,
        multiple,
        plain | {"long_name": "multiple of the lever at which the ranking changes, nan: none within reach"},
    )
    out["flip_leader"] = (dims, leader, plain | {"long_name": "who is cheapest beyond the flip"})
    out["flip_inside"] = (dims, inside, plain | {"long_name": "1 where the stated interval reaches the flip"})
    out["lever_interval"] = (("lever", "way"), ends, plain | {"long_name": "multiples of the stated 90 % interval"})
    out["lead"] = (
        ("against", "lever", "multiple"),
        curves,
        plain | {"long_name": "logarithm of the cheapest rival's cost over the leader's"},
    )
    facts = [{"against": r.against, "leader": r.leader, "pair": r.pair, "line": r.line, "rising": r.rising} for r in rankings]
    out.attrs["breakeven"] = json.dumps(facts)
    return out
