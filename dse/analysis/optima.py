"""How does the cost of the best design move with an assumption? Designs polished anew, and the derivative by the envelope theorem.

``polish`` moves a design's real-valued variables and its layout to their best under a catalogue. At that optimum the design stays and the
multipliers of its limits price what a lever takes from them, so that one gradient tells the derivative by every number of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.analysis.inputs import Place, scaled
from dse.analysis.reoptimise import Start
from dse.catalog import Catalog
from dse.evaluate import as_floats
from dse.search.finish import Finished, bundle, polish
from dse.search.layouts import Case
from dse.search.shadow import weights

STEP = 1e-4  # of the central differences, in logarithms of a lever
STATIONARY = 1e-3  # residual of optimality above which an envelope derivative is not to be trusted


@dataclass(frozen=True)
class Asked:
    """Which cost is minimised: a case, the owner, the limit on the time per token [s]."""

    case: Case
    scenario: str
    limit_s: float


def polished(
    start: Start, catalog: Catalog, asked: Asked, decisions: Any, layout: Any = None, rounds: int = 2, each: int = 1, seed: int = 0
) -> Finished | None:
    """One design of a family polished under a catalogue, from its decisions (and layout); None where it comes near no limit."""
    prices = as_floats(catalog.prices[asked.scenario])
    return polish(start.shop(catalog), decisions, asked.case, prices, asked.limit_s, start.grid, layout, None, rounds, each, seed)


def slopes(start: Start, catalog: Catalog, asked: Asked, found: Finished, levers: Sequence[Sequence[Place]]) -> tuple[np.ndarray, float]:
    """d ln (optimal cost) / d ln (lever) for groups of numbers multiplied together, layout kept; and the residual of optimality.

    Args:
        start, catalog, asked: What was polished. found: The polished design. levers: Places of each.
    """

    def at(book: Catalog) -> Any:
        prices = as_floats(book.prices[asked.scenario])
        return bundle(start.shop(book), found.decisions, asked.case, prices, asked.limit_s, found.layout)

    point, middle = at(catalog)
    w = weights(middle, point)
    out = []
    for places in levers:
        (_, up), (_, down) = (at(scaled(catalog, places, float(np.exp(sign * STEP)))) for sign in (1, -1))
        cost, slack = (up.log_cost - down.log_cost) / (2 * STEP), (up.slack - down.slack) / (2 * STEP)
        out.append(float(w.slope(cost, slack)))
    return np.array(out), w.residual
