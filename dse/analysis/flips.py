"""Where does the ranking change when designs follow? Newton's method on families re-optimised at every multiple that is tried.

The break-even of fixed designs (``breakeven``) is where the search for a root starts. There all families that come near are re-optimised
by ``finish`` (``anew``); the envelope theorem says where their costs should be even, and they are re-optimised again there, until they are.
The nearest flips are confirmed by searches that know no design, on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.anew import Anew
from dse.analysis.breakeven import Lever
from dse.analysis.inputs import scaled
from dse.analysis.optima import Asked, Start, reoptimised
from dse.analysis.roots import CLOSE, Bracket, Lead, Line
from dse.catalog import Catalog
from dse.search.finish import Finished

if TYPE_CHECKING:
    import xarray as xr

AFRESH = 1024  # chips of a search that starts from nothing
OUT_OF_SIGHT = np.log(1.5)  # of a rival's designs on the front above the cheapest rival, beyond which it is not designed anew
STEP = 1e-2  # of differences of costs of fixed designs, in logarithms of a lever: single precision
BESIDE, LEAST, MOST, UNKNOWN = 0.06, 0.02, 0.3, 0.1  # lead at which a flip is confirmed; how far from it, in logarithms of the lever

Row = Mapping[Lever, float]  # multiples of levers
Held = Callable[[Sequence[Row]], Mapping[str, np.ndarray]]  # rows to logarithms of least cost, with the designs of the front, of everyone


# --- roots ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A root that is looked for: which lever, where to start (logarithm of its multiple), with which others held at which multiples."""

    lever: Lever
    first: float
    rivals: tuple[str, ...]  # whom the leader is compared with
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
    envelope: float = float("nan")  # first estimate: designs anew at the flip of fixed ones, and one step by the envelope theorem
    settled: bool = True  # whether the root, or that there is none, was found in the trials allowed


def followed(market: Anew, leader: str, turns: Sequence[Turn], held: Held) -> list[Followed]:
    """The roots of all turns, families re-optimised at every multiple that is tried.

    Args:
        market: Families; rivals that it does not know stay as they are. leader: Whose lead it is. turns: What to look for.
        held: Costs with the designs of the front, which remain open to everyone.
    """
    brackets = [Bracket(t.first, t.lever.most) if t.rising is None else Line(t.first, t.lever.most, t.rising) for t in turns]
    known: dict[tuple[int, str], Finished] = {}
    who, estimates = [""] * len(turns), [float("nan")] * len(turns)

    def cost(i: int, family: str, row: Row, fixed: Sequence[float]) -> tuple[float, float]:
        """Logarithm of a competitor's least cost and its slope; ``fixed``: here, a little above and a little below."""
        stays = fixed[0], (fixed[1] - fixed[2]) / (2 * STEP) if np.isfinite(fixed).all() else float("nan")
        if family not in market.starts:
            return stays
        book = market.catalog
        for lever, multiple in row.items():
            book = scaled(book, lever.places, multiple)
        touched = market.touched(family, book)
        found = market.best(family, book, known.get((i, family))) if touched else market.optimum(family)
        if found is None or np.log(found.cost) > stays[0]:
            return stays
        known[i, family] = found
        return float(np.log(found.cost)), market.slope(family, book, found, turns[i].lever.places) if touched else 0.0

    def lead(i: int, row: Row, fixed: Mapping[str, Sequence[float]]) -> Lead:
        rivals = turns[i].rivals
        near = min(fixed[r][0] for r in rivals) + OUT_OF_SIGHT
        mine, slope = cost(i, leader, row, fixed[leader])
        theirs = {r: cost(i, r, row, fixed[r]) if fixed[r][0] <= near else (fixed[r][0], float("nan")) for r in rivals}
        best = min(theirs, key=lambda r: theirs[r][0])
        value = theirs[best][0] - mine if np.isfinite(mine) else -np.inf
        if value <= CLOSE:
            who[i] = best if np.isfinite(theirs[best][0]) else leader
        return Lead(float(value), float(theirs[best][1] - slope))

    while live := [i for i, b in enumerate(brackets) if not b.done]:
        rows = [turns[i].row(brackets[i].way * brackets[i].x) for i in live]
        pairs = list(zip((turns[i].lever for i in live), rows, strict=True))
        moved = [{**r, lever: r[lever] * float(np.exp(s))} for s in (0, STEP, -STEP) for lever, r in pairs]
        costs = {name: x.reshape(3, len(live)) for name, x in held(moved).items()}
        for k, i in enumerate(live):
            x = brackets[i].way * brackets[i].x
            found = lead(i, rows[k], {name: c[:, k].tolist() for name, c in costs.items()})
            if not brackets[i].trials:
                estimates[i] = _estimate(x, found)
            brackets[i].tell(found)
    out = []
    for t, b, w, first in zip(turns, brackets, who, estimates, strict=True):
        x, at = b.at if b.at else (float("nan"), Lead(float("nan")))
        out.append(Followed(t, float(np.exp(x)), at.slope, w if b.at else "", at.value, b.trials, first, not b.unsettled))
    return out


def _estimate(x: float, found: Lead) -> float:
    """The multiple at which a straight line through a lead comes to zero; nan where its slope says nothing."""
    if not np.isfinite(found.value) or not np.isfinite(found.slope) or found.slope == 0:
        return float("nan")
    step = -found.value / found.slope
    return float(np.exp(x + step)) if abs(step) < np.log(10.0) else float("nan")


def turns_of(ds: xr.Dataset, against: str, levers: Mapping[str, Lever], rivals: tuple[str, ...]) -> list[Turn]:
    """Turns that start at the flips of fixed designs."""
    table = ds["flip_multiple"].sel(against=against).transpose("lever", "way").values
    found = zip(ds["lever"].values, table, strict=True)
    return [Turn(levers[str(n)], float(np.log(x)), rivals, float(x)) for n, row in found for x in row if np.isfinite(x)]


def pair_turns(facts: Mapping[str, Any], levers: Mapping[str, Lever], rivals: tuple[str, ...], every: int = 1) -> list[Turn]:
    """Turns of the break-even of a pair, with the first lever held at (every so many) of its multiples."""
    points = [(float(a), float(b)) for a, b in facts["line"] if np.isfinite(float(b))][::every]
    if not facts["pair"] or not points:
        return []
    one, two = (levers[n] for n in facts["pair"])
    return [Turn(two, float(np.log(b)), rivals, b, ((one, a),), bool(facts["rising"])) for a, b in points]


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


def confirmed(pair: Pair, held: Held, lever: Lever, flip: Reoptimised, limits_s: Sequence[float]) -> Reoptimised:
    """The same flip with searches from nothing just before and just after it; the designs of the front remain open to both."""
    x = np.log(flip.multiple)
    steep = abs(flip.slope) if np.isfinite(flip.slope) else 0.0
    step = float(np.clip(BESIDE / steep if steep > 0 else UNKNOWN, LEAST, MOST)) * np.sign(x)
    at = [float(np.exp(y)) for y in (x - step, min(x + step, np.log(lever.most)))]
    costs = held([{lever: m} for m in at])
    kept = [np.exp(costs[s.family]) for s in (pair.leader, pair.rival)]
    sides = [(m, pair.afresh(lever, m, limits_s, (float(kept[0][i]), float(kept[1][i])))) for i, m in enumerate(at)]
    return replace(flip, before=sides[0], after=sides[1])


# --- from and into the Dataset ---------------------------------------------------------------------------------------------------


def into(ds: xr.Dataset, found: Mapping[str, Sequence[Followed]], checked: Sequence[Reoptimised], lines: Mapping[str, Any]) -> xr.Dataset:
    """The Dataset with ``flip_reoptimised``, its ``_leader``, ``flip_followed``, ``flip_envelope`` (against, lever, way), and attributes.

    Args:
        found: By comparison. checked: Flips that searches from nothing were asked about. lines: Break-evens of pairs, by comparison.
    """
    dims = ("against", "lever", "way")
    shape = tuple(ds.sizes[d] for d in dims)
    multiples, leaders, followed = np.full(shape, np.nan), np.full(shape, "", object), np.zeros(shape)
    envelope = np.full(shape, np.nan)
    against, levers = list(ds["against"].values), list(ds["lever"].values)
    for name, rows in found.items():
        for r in rows:
            if not r.settled:  # the flip of the front's designs stands
                continue
            at = against.index(name), levers.index(r.turn.lever.name), int(r.turn.first > 0)
            multiples[at], leaders[at], followed[at], envelope[at] = r.multiple, r.leader, 1.0, r.envelope
    plain = {"units": "1", "better": "none"}
    text = "multiple of the lever at which the ranking changes, families designed anew; nan: none within reach"
    out = ds.drop_vars([n for n in ("flip_reoptimised", "flip_reoptimised_leader", "flip_followed", "flip_envelope") if n in ds])
    out = out.assign(
        flip_reoptimised=(dims, multiples, plain | {"long_name": text}),
        flip_followed=(dims, followed, plain | {"long_name": "1 where the flip was looked for with families designed anew, else 0"}),
        flip_envelope=(dims, envelope, plain | {"long_name": "first estimate of the same by one step of the envelope theorem"}),
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
