"""Where does the ranking of two families change when both are designed anew? Newton's method on polished designs, then a search afresh.

The break-even of fixed designs (``breakeven``) is where the search for the root starts. Both families are re-optimised at every multiple
tried; envelope derivatives give the next one. A flip found so is confirmed by searches that know no design, just before and just after it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.breakeven import REACH, Flip, Lever
from dse.analysis.inputs import scaled
from dse.analysis.optima import Asked, Start, reoptimised, slopes
from dse.catalog import Catalog
from dse.search.finish import Finished

if TYPE_CHECKING:
    import xarray as xr

BRED = 160  # chips tried at every multiple, beside the polished designs
AFRESH = 2048  # chips of a search that starts from nothing
CLOSE = 2e-3  # lead below which a multiple counts as the flip, in logarithms
TRIALS = 8  # multiples at which both families are re-optimised, at most
WIDEST, NARROW = 0.7, 0.01  # largest step, and bracket that is not cut further, in logarithms of the lever
BESIDE, LEAST, MOST, UNKNOWN = 0.06, 0.02, 0.3, 0.1  # lead at which a flip is confirmed; how far from it, in logarithms of the lever


Both = tuple[Finished | None, Finished | None]  # optima of leader and rival


@dataclass(frozen=True)
class Lead:
    """Logarithm of the rival's cost over the leader's, both re-optimised, and its derivative by the logarithm of the lever."""

    value: float  # inf where the rival is not feasible, -inf where the leader is not
    slope: float = float("nan")


def root(lead: Callable[[float], Lead], first: float, most: float, reach: float = REACH) -> tuple[float, Lead] | None:
    """The logarithm of the multiple at which a lead, positive at 0, comes to zero, and the lead there; None within reach.

    Args:
        lead: Of the logarithm of the multiple. first: Where to start, the sign says in which direction. most: Largest multiple allowed.

    >>> x, _ = root(lambda x: Lead(1.0 - x - x**2 / 4, -1.0 - x / 2), 0.3, 100.0)
    >>> round(x, 2)  # 2 (sqrt(2) - 1)
    0.83
    """
    way = float(np.sign(first))
    end = min(np.log(reach), np.log(most)) if way > 0 else np.log(reach)
    ahead, behind = (0.0, float("nan")), (float("inf"), float("nan"))  # nearest distances, and leads there, where the leader leads, or not
    x = abs(first)
    for _ in range(TRIALS):
        found = lead(way * x)
        if abs(found.value) < CLOSE:
            return way * x, found
        if found.value > 0:
            if x >= end:
                return None
            ahead = max(ahead, (x, found.value))
        else:
            behind = min(behind, (x, found.value))
        if behind[0] - ahead[0] < NARROW:
            break
        x = min(_next(x, found.value, way * found.slope, ahead, behind), end)
    if not np.isfinite(behind[0]) or behind[0] - ahead[0] > WIDEST / 2:
        return None
    return way * behind[0], Lead(behind[1])


def _next(x: float, value: float, slope: float, ahead: tuple[float, float], behind: tuple[float, float]) -> float:
    """Newton's step where it stays inside of the bracket, else a straight line through its ends, else its middle."""
    (a, up), (b, down) = ahead, behind
    if np.isfinite(value) and slope < 0 and a < x - value / slope < b:
        return x + float(np.clip(-value / slope, -WIDEST, WIDEST))
    if not np.isfinite(b):
        return x + WIDEST
    share = up / (up - down) if np.isfinite(up) and np.isfinite(down) else 1 / 2
    return a + (b - a) * float(np.clip(share, 1 / 8, 7 / 8))


@dataclass(frozen=True)
class Pair:
    """Leader and rival as searches start on them, and what is asked."""

    leader: Start
    rival: Start
    asked: Asked
    catalog: Catalog
    seed: int

    @functools.cached_property
    def stated(self) -> Both:
        """Both families at the stated values: where every search begins."""
        one, two = (reoptimised(s, self.catalog, self.asked, 2 * BRED, self.seed) for s in (self.leader, self.rival))
        return one, two

    def best(
        self, lever: Lever, multiple: float, known: tuple[Finished | None, Finished | None]
    ) -> tuple[Finished | None, Finished | None]:
        """Both families re-optimised with a lever multiplied."""
        book = scaled(self.catalog, lever.places, multiple)
        one, two = (reoptimised(s, book, self.asked, BRED, self.seed, k) for s, k in zip((self.leader, self.rival), known, strict=True))
        return one, two

    def afresh(self, lever: Lever, multiple: float, limits_s: Sequence[float]) -> float:
        """The lead that searches from nothing find, without any design of the front."""
        book = scaled(self.catalog, lever.places, multiple)
        one, two = (
            reoptimised(replace(s, designs=()), book, self.asked, AFRESH, self.seed, None, limits_s) for s in (self.leader, self.rival)
        )
        return lead_of(one, two)

    def slope(self, lever: Lever, multiple: float, found: Both) -> float:
        """Derivative of the lead by the logarithm of the lever, by the envelope theorem."""
        if found[0] is None or found[1] is None:
            return float("nan")
        book = scaled(self.catalog, lever.places, multiple)
        one, two = (
            float(slopes(s, book, self.asked, f, [lever.places])[0][0])
            for s, f in zip((self.leader, self.rival), found, strict=True)
            if f is not None
        )
        return two - one


def lead_of(leader: Finished | None, rival: Finished | None) -> float:
    """Logarithm of the rival's cost over the leader's; -inf without a leader, inf without a rival."""
    if leader is None:
        return -np.inf
    return np.inf if rival is None else float(np.log(rival.cost / leader.cost))


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


def found_anew(pair: Pair, lever: Lever, flip: Flip) -> Reoptimised:
    """A flip of fixed designs looked for again with designs that follow the lever."""
    known: list[Both] = [pair.stated]

    def lead(x: float) -> Lead:
        now = pair.best(lever, float(np.exp(x)), known[-1])
        known.append((now[0] or known[-1][0], now[1] or known[-1][1]))
        return Lead(lead_of(*now), pair.slope(lever, float(np.exp(x)), now))

    at = root(lead, float(np.log(flip.multiple)), lever.most)
    multiple, slope = (float(np.exp(at[0])), at[1].slope) if at else (float("nan"), float("nan"))
    return Reoptimised(lever.name, flip.multiple, multiple, slope, pair.leader.family, pair.rival.family)


def confirmed(pair: Pair, lever: Lever, flip: Reoptimised, limits_s: Sequence[float]) -> Reoptimised:
    """The same flip with searches from nothing just before and just after it."""
    x = np.log(flip.multiple)
    steep = abs(flip.slope) if np.isfinite(flip.slope) else 0.0
    step = float(np.clip(BESIDE / steep if steep > 0 else UNKNOWN, LEAST, MOST)) * np.sign(x)
    sides = []
    for at in (x - step, min(x + step, np.log(lever.most))):
        multiple = float(np.exp(at))
        sides.append((multiple, pair.afresh(lever, multiple, limits_s)))
    return replace(flip, before=sides[0], after=sides[1])


# --- from and into the Dataset ---------------------------------------------------------------------------------------------------


def nearest_of(ds: xr.Dataset, against: str) -> list[Flip]:
    """The flips of fixed designs that a Dataset holds, the nearest to the stated values first."""
    table = ds.sel(against=against).transpose("lever", "way", ...)
    found = [
        Flip(str(lever), float(x), str(table["flip_leader"].values[i, j]), bool(table["flip_inside"].values[i, j] > 0))
        for i, lever in enumerate(ds["lever"].values)
        for j, x in enumerate(table["flip_multiple"].values[i])
        if np.isfinite(x)
    ]
    return sorted(found, key=lambda f: abs(np.log(f.multiple)))


def into(ds: xr.Dataset, found: Sequence[Reoptimised]) -> xr.Dataset:
    """The Dataset with ``flip_reoptimised`` (lever, way) between families, and all that was found in an attribute."""
    multiples = np.full((ds.sizes["lever"], ds.sizes["way"]), np.nan)
    levers, ways = list(ds["lever"].values), list(ds["way"].values)
    for r in found:
        multiples[levers.index(r.lever), ways.index("up" if r.fixed > 1 else "down")] = r.multiple
    text = "multiple of the lever at which the ranking of families changes, both designed anew; nan: not asked, or none within reach"
    out = ds.assign(flip_reoptimised=(("lever", "way"), multiples, {"units": "1", "better": "none", "long_name": text}))
    out.attrs["flips_reoptimised"] = json.dumps([row_of(r) for r in found])
    return out


def row_of(r: Reoptimised) -> dict[str, Any]:
    """A flip as it is kept: numbers that are not finite as words."""

    def plain(x: Any) -> Any:
        return [plain(v) for v in x] if isinstance(x, tuple) else str(x) if isinstance(x, float) and not np.isfinite(x) else x

    return {k: plain(v) for k, v in asdict(r).items()} | {"confirmed": r.confirmed}
