"""Where does the ranking change when designs follow? Newton's method on re-optimised families, all levers at once.

The break-even of fixed designs (``breakeven``) is where the search for a root starts. Families are re-optimised at every multiple tried
(``market``); envelope derivatives give the next one. The nearest flips are confirmed by searches that know no design, on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.breakeven import Lever, multiplied
from dse.analysis.inputs import scaled
from dse.analysis.market import STEP, Best, Market, stacked
from dse.analysis.optima import Asked, Start, reoptimised
from dse.analysis.roots import CLOSE, Bracket, Lead, Line
from dse.catalog import Catalog

if TYPE_CHECKING:
    import xarray as xr

AFRESH = 2048  # chips of a search that starts from nothing
OUT_OF_SIGHT = np.log(2.0)  # of a rival's pool above the cheapest rival, beyond which it is not polished
BESIDE, LEAST, MOST, UNKNOWN = 0.06, 0.02, 0.3, 0.1  # lead at which a flip is confirmed; how far from it, in logarithms of the lever


# --- all roots at once ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A root that is looked for: which lever, where to start (logarithm of its multiple), with which others held at which multiples."""

    lever: Lever
    first: float
    rivals: tuple[str, ...]  # families that are re-optimised against the leader
    fixed: float = float("nan")  # multiple of the front's designs
    held: tuple[tuple[Lever, float], ...] = ()
    rising: bool | None = None  # whether the lead rises with the lever: then the root may lie on either side of the stated value

    def row(self, x: float) -> dict[Lever, float]:
        """Multiples of levers at a logarithm of this one's."""
        return {**dict(self.held), self.lever: float(np.exp(x))}


@dataclass(frozen=True)
class Followed:
    """Where a turn ends: multiple (nan: none within reach), slope of the lead there, who leads beyond, in how many trials."""

    turn: Turn
    multiple: float
    slope: float
    leader: str
    lead: float
    trials: int


Chips = Callable[[Sequence[Mapping[Lever, float]]], np.ndarray]  # rows to least cost of the chips that exist, layouts chosen anew


def followed(market: Market, leader: str, turns: Sequence[Turn], existing: Chips, name: str) -> list[Followed]:
    """The roots of all turns, families re-optimised at every multiple that is tried, all turns together.

    Args:
        market: Families. leader: Whose lead it is. turns: What to look for. existing: Costs of chips that exist; ``name``: as a rival.
    """
    brackets = [Bracket(t.first, t.lever.most) if t.rising is None else Line(t.first, t.lever.most, t.rising) for t in turns]
    known: dict[tuple[int, str], Best] = {}
    who = [""] * len(turns)

    def leads(live: Sequence[int]) -> list[Lead]:
        rows = [turns[i].row(brackets[i].way * brackets[i].x) for i in live]
        scene = _Rows(market, rows, [turns[i].lever for i in live])
        costs: dict[str, np.ndarray] = {}
        slopes: dict[str, np.ndarray] = {}
        for family in market.competitors:
            mine = [k for k, i in enumerate(live) if family == leader or family in turns[i].rivals]
            others = [costs[f] for f in costs if f != leader]
            least = np.min(others, axis=0) if others and family != leader else None
            costs[family], slopes[family] = scene.costs(family, mine, [(live[k], family) for k in mine], known, least)
        real = [k for k, i in enumerate(live) if name in turns[i].rivals]
        costs[name], slopes[name] = np.full(len(live), np.inf), np.zeros(len(live))
        if real:
            costs[name][real] = np.log(existing([rows[k] for k in real]))
            slopes[name][real] = np.nan  # layouts change in steps
        found = []
        for k, i in enumerate(live):
            best = min(turns[i].rivals, key=lambda r: costs[r][k])
            value = costs[best][k] - costs[leader][k] if np.isfinite(costs[leader][k]) else -np.inf
            found.append(Lead(float(value), float(slopes[best][k] - slopes[leader][k])))
            if value <= CLOSE:
                who[i] = best if np.isfinite(costs[best][k]) else leader
        return found

    while live := [i for i, b in enumerate(brackets) if not b.done]:
        for i, found in zip(live, leads(live), strict=True):
            brackets[i].tell(found)
    out = []
    for t, b, w in zip(turns, brackets, who, strict=True):
        x, at = b.at if b.at else (float("nan"), Lead(float("nan")))
        out.append(Followed(t, float(np.exp(x)), at.slope, w if b.at else "", at.value, b.trials))
    return out


def turns_of(ds: xr.Dataset, against: str, levers: Mapping[str, Lever], rivals: tuple[str, ...]) -> list[Turn]:
    """Turns that start at the flips of fixed designs."""
    table = ds["flip_multiple"].sel(against=against).transpose("lever", "way").values
    found = zip(ds["lever"].values, table, strict=True)
    return [Turn(levers[str(n)], float(np.log(x)), rivals, float(x)) for n, row in found for x in row if np.isfinite(x)]


def pair_turns(facts: Mapping[str, Any], levers: Mapping[str, Lever], rivals: tuple[str, ...]) -> list[Turn]:
    """Turns of the break-even of a pair, with the first lever held at each of its multiples."""
    points = [(float(a), float(b)) for a, b in facts["line"] if np.isfinite(float(b))]
    if not facts["pair"] or not points:
        return []
    one, two = (levers[n] for n in facts["pair"])
    return [Turn(two, float(np.log(b)), rivals, b, ((one, a),), bool(facts["rising"])) for a, b in points]


@dataclass
class _Rows:
    """Rows of multiples as books, and the same with every row's lever a little larger and smaller."""

    market: Market
    rows: Sequence[Mapping[Lever, float]]
    levers: Sequence[Lever]

    def __post_init__(self) -> None:
        def books(step: float) -> Any:
            moved = [{**r, x: r[x] * float(np.exp(step))} for r, x in zip(self.rows, self.levers, strict=True)]
            return self.market.books(multiplied(self.market.catalog, moved, len(moved)), len(moved))

        self.middle, self.up, self.down = books(0.0), books(STEP), books(-STEP)

    def costs(
        self,
        family: str,
        mine: Sequence[int],
        keys: Sequence[tuple[int, str]],
        known: dict[tuple[int, str], Best],
        best: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of a family's least cost in some rows (inf elsewhere), and slopes; ``known`` learns the optima.

        A family whose pool is far above ``best`` in a row stays as it is in its pool. What is named or counted is looked through where
        the search for a root begins.
        """
        m = self.market
        cost, slope = np.full(len(self.rows), np.inf), np.zeros(len(self.rows))
        if not mine:
            return cost, slope
        moved, pool = m.touched(family, self.middle, mine)
        cost[mine] = np.where(moved, pool, float(m.optimum[family].cost[0]))
        bound = np.inf if best is None else best[list(mine)] + OUT_OF_SIGHT
        chosen = np.flatnonzero(moved & ~(pool > bound)).tolist()
        if not chosen:
            return cost, slope
        rows, own = [mine[k] for k in chosen], [keys[k] for k in chosen]
        new = [k for k, key in enumerate(own) if key not in known]
        found = m.best(family, self.middle, rows, stacked([known.get(k, m.optimum[family]) for k in own]))
        if new:
            looked = m.beside(family, self.middle, [rows[k] for k in new], found.at(new))
            order = np.arange(len(rows))
            order[new] = len(rows) + np.arange(len(new))
            found = stacked([found, looked]).at(order)
        known.update({k: found.at(slice(i, i + 1)) for i, k in enumerate(own)})
        m.learn(family, found)
        cost[rows], slope[rows] = found.cost, m.slopes(self.up, self.middle, self.down, found, rows)
        return cost, slope


# --- searches from nothing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Leader and rival as searches start on them, and what is asked."""

    leader: Start
    rival: Start
    asked: Asked
    catalog: Catalog
    seed: int

    def afresh(self, lever: Lever, multiple: float, limits_s: Sequence[float], kept: tuple[float, float] = (np.inf, np.inf)) -> float:
        """The lead that searches from nothing find, without any design of the front; ``kept``: costs of the front's with capped power."""
        book = scaled(self.catalog, lever.places, multiple)
        one, two = (
            reoptimised(replace(s, designs=()), book, self.asked, AFRESH, self.seed, None, limits_s) for s in (self.leader, self.rival)
        )
        first, second = (min(f.cost if f else np.inf, k) for f, k in zip((one, two), kept, strict=True))
        return lead_of(first, second)


def lead_of(leader: float, rival: float) -> float:
    """Logarithm of the rival's cost over the leader's; -inf without a leader, inf without a rival."""
    if not np.isfinite(leader):
        return -np.inf
    return float(np.log(rival / leader)) if np.isfinite(rival) else np.inf


@dataclass(frozen=True)
class Reoptimised:
    """A flip with both families designed anew: where, how steep, and what searches from nothing say on both sides (nan: not asked)."""

    lever: str
    fixed: float  # multiple of the flip of the front's designs
    multiple: float  # nan: none within reach
    slope: float
    leader: str
    rival: str
    before: tuple[float, float] = (float("nan"), float("nan"))  # multiple, lead
    after: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def confirmed(self) -> bool | None:
        """Whether the ranking changes between searches just before and just after; None where none was made."""
        return None if np.isnan(self.before[1]) else self.before[1] > 0 > self.after[1]


def confirmed(pair: Pair, market: Market, lever: Lever, flip: Reoptimised, limits_s: Sequence[float]) -> Reoptimised:
    """The same flip with searches from nothing just before and just after it."""
    x = np.log(flip.multiple)
    steep = abs(flip.slope) if np.isfinite(flip.slope) else 0.0
    step = float(np.clip(BESIDE / steep if steep > 0 else UNKNOWN, LEAST, MOST)) * np.sign(x)
    at = [float(np.exp(y)) for y in (x - step, min(x + step, np.log(lever.most)))]
    books = market.books(multiplied(market.catalog, [{lever: m} for m in at], len(at)), len(at))
    kept = [np.exp(market.best(s.family, books, range(len(at)), steps=0).kept_cost) for s in (pair.leader, pair.rival)]
    sides = [(m, pair.afresh(lever, m, limits_s, (float(kept[0][i]), float(kept[1][i])))) for i, m in enumerate(at)]
    return replace(flip, before=sides[0], after=sides[1])


# --- from and into the Dataset ---------------------------------------------------------------------------------------------------


def into(ds: xr.Dataset, found: Mapping[str, Sequence[Followed]], checked: Sequence[Reoptimised], lines: Mapping[str, Any]) -> xr.Dataset:
    """The Dataset with ``flip_reoptimised``, its ``_leader`` and ``flip_followed`` (against, lever, way), and more in attributes.

    Args:
        found: By comparison. checked: Flips that searches from nothing were asked about. lines: Break-evens of pairs, by comparison.
    """
    dims = ("against", "lever", "way")
    shape = tuple(ds.sizes[d] for d in dims)
    multiples, leaders, followed = np.full(shape, np.nan), np.full(shape, "", object), np.zeros(shape)
    against, levers = list(ds["against"].values), list(ds["lever"].values)
    for name, rows in found.items():
        for r in rows:
            at = against.index(name), levers.index(r.turn.lever.name), int(r.turn.first > 0)
            multiples[at], leaders[at], followed[at] = r.multiple, r.leader, 1.0
    plain = {"units": "1", "better": "none"}
    text = "multiple of the lever at which the ranking changes, families designed anew; nan: none within reach"
    out = ds.drop_vars([n for n in ("flip_reoptimised", "flip_reoptimised_leader", "flip_followed") if n in ds])
    out = out.assign(
        flip_reoptimised=(dims, multiples, plain | {"long_name": text}),
        flip_followed=(dims, followed, plain | {"long_name": "1 where the flip was looked for with families designed anew, else 0"}),
        flip_reoptimised_leader=(dims, leaders, plain | {"long_name": "who is cheapest beyond the flip, families designed anew"}),
    )
    out.attrs["flips_reoptimised"] = json.dumps([row_of(r) for r in checked])
    out.attrs["pairs_reoptimised"] = json.dumps(lines)
    return out


def row_of(r: Reoptimised) -> dict[str, Any]:
    """A flip as it is kept: numbers that are not finite as words."""

    def plain(x: Any) -> Any:
        return [plain(v) for v in x] if isinstance(x, tuple) else str(x) if isinstance(x, float) and not np.isfinite(x) else x

    return {k: plain(v) for k, v in asdict(r).items()} | {"confirmed": r.confirmed}
