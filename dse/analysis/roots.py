"""At which multiple does a lead come to zero? Newton's steps inside of a bracket, told one lead at a time, so that many go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dse.analysis.breakeven import REACH

CLOSE = 2e-3  # lead below which a multiple counts as the flip, in logarithms
TRIALS, OF_A_LINE = 8, 14  # multiples at which families are re-optimised, at most; of a pair's root, which may lie on either side
SETTLED = 0.05  # bracket in which a search that ran out of trials counts as settled
WIDEST, NARROW = 0.7, 0.01  # largest step, and bracket that is not cut further, in logarithms of the lever


@dataclass(frozen=True)
class Lead:
    """Logarithm of the cheapest rival's cost over the leader's, re-optimised, and its derivative by the logarithm of the lever."""

    value: float  # inf where no rival is feasible, -inf where the leader is not
    slope: float = float("nan")


@dataclass
class Bracket:
    """The search for the multiple at which a lead, positive at 1, comes to zero; logarithms of the multiple in one direction."""

    first: float  # where to start; the sign says in which direction
    most: float  # largest multiple allowed
    reach: float = REACH
    x: float = field(init=False)
    ahead: tuple[float, float] = (0.0, float("nan"))  # nearest distance, and lead there, where the leader leads
    behind: tuple[float, float] = (float("inf"), float("nan"))  # where it does not
    at: tuple[float, Lead] | None = None  # the root, once it is found
    done: bool = False
    trials: int = 0
    unsettled: bool = False  # the trials ran out before the root, or that there is none, was known

    def __post_init__(self) -> None:
        self.x = min(abs(self.first), self.end)

    @property
    def way(self) -> float:
        """1 upwards, -1 downwards."""
        return float(np.sign(self.first))

    @property
    def end(self) -> float:
        """Largest distance."""
        return float(min(np.log(self.reach), np.log(self.most)) if self.way > 0 else np.log(self.reach))

    def tell(self, found: Lead) -> None:
        """The lead where the bracket asked for it."""
        self.trials += 1
        if abs(found.value) < CLOSE:
            self.at, self.done = (self.way * self.x, found), True
            return
        if found.value > 0:
            if self.x >= self.end:
                self.done = True  # nothing within reach
                return
            self.ahead = max(self.ahead, (self.x, found.value))
        else:
            self.behind = min(self.behind, (self.x, found.value))
        enough = NARROW if np.isfinite(self.behind[1]) else SETTLED  # where it drops out, no line leads there
        if self.behind[0] - self.ahead[0] < enough or self.trials >= TRIALS:
            self.done = True
            if np.isfinite(self.behind[0]) and self.behind[0] - self.ahead[0] <= SETTLED:
                self.at = (self.way * self.behind[0], Lead(self.behind[1]))
            self.unsettled = self.at is None
            return
        self.x = min(_next(self.x, found.value, self.way * found.slope, self.ahead, self.behind), self.end)


@dataclass
class Line:
    """The search for the root of a lead that rises or falls with a lever throughout, in both directions of its stated value."""

    first: float  # logarithm of the multiple where to start
    most: float
    rising: bool
    reach: float = REACH
    x: float = field(init=False)
    way: float = 1.0
    low: float = -np.inf  # where the lead is negative if it rises
    high: float = np.inf
    at: tuple[float, Lead] | None = None
    done: bool = False
    trials: int = 0
    unsettled: bool = False

    def __post_init__(self) -> None:
        self.x = self.first

    def tell(self, found: Lead) -> None:
        """The lead where the line asked for it."""
        self.trials += 1
        if abs(found.value) < CLOSE:
            self.at, self.done = (self.x, found), True
            return
        ends = -np.log(self.reach), min(np.log(self.reach), np.log(self.most))
        if (found.value > 0) == self.rising:
            self.high = min(self.high, self.x)
        else:
            self.low = max(self.low, self.x)
        if self.high - self.low < NARROW or self.trials >= OF_A_LINE:
            self.done = True
            self.at = (self.x, found) if self.high - self.low < SETTLED else None
            self.unsettled = self.at is None
            return
        step = -found.value / found.slope if np.isfinite(found.value) and (found.slope > 0) == self.rising and found.slope != 0 else np.nan
        wanted = self.x + float(np.clip(step, -WIDEST, WIDEST)) if np.isfinite(step) else np.nan
        if not self.low < wanted < self.high:
            known = np.isfinite(self.low) and np.isfinite(self.high)
            wanted = (self.low + self.high) / 2 if known else self.x + WIDEST * (1 if np.isfinite(self.low) else -1)
        at = float(np.clip(wanted, *ends))
        self.done, self.x = at == self.x, at


def root(lead: Callable[[float], Lead], first: float, most: float, reach: float = REACH) -> tuple[float, Lead] | None:
    """The logarithm of the multiple at which a lead, positive at 0, comes to zero, and the lead there; None within reach.

    Args:
        lead: Of the logarithm of the multiple. first: Where to start, the sign says in which direction. most: Largest multiple allowed.

    >>> x, _ = root(lambda x: Lead(1.0 - x - x**2 / 4, -1.0 - x / 2), 0.3, 100.0)
    >>> round(x, 2)  # 2 (sqrt(2) - 1)
    0.83
    """
    b = Bracket(first, most, reach)
    while not b.done:
        b.tell(lead(b.way * b.x))
    return b.at


def _next(x: float, value: float, slope: float, ahead: tuple[float, float], behind: tuple[float, float]) -> float:
    """Newton's step where it stays inside of the bracket, else a straight line through its ends, else its middle."""
    (a, up), (b, down) = ahead, behind
    if np.isfinite(value) and slope < 0 and a < x - value / slope < b:
        return x + float(np.clip(-value / slope, -max(WIDEST, x), max(WIDEST, x)))
    if not np.isfinite(b):
        return x + max(WIDEST, x)  # twice as far
    share = up / (up - down) if np.isfinite(up) and np.isfinite(down) else 1 / 2
    return a + (b - a) * float(np.clip(share, 1 / 8, 7 / 8))
