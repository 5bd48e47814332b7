"""How does the cost of the best design move with an assumption? Designs polished anew, and the derivative by the envelope theorem.

``polish`` moves a design's real-valued variables and its layout to their best under a catalogue. At that optimum the design stays and the
multipliers of its limits price what a lever takes from them, so that one gradient tells the derivative by every number of the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.analysis.inputs import Place, scaled
from dse.analysis.niches import BLOCK, Niche, breed
from dse.catalog import Catalog
from dse.evaluate import as_floats
from dse.search.designs import Shop, build_block, column, pad
from dse.search.finish import Finished, bundle, polish
from dse.search.grid import Case, Grid, layout_table
from dse.search.layouts import screen
from dse.search.shadow import weights
from dse.search.shards import canonical, points_of
from dse.search.solvers import free_of

STEP = 1e-4  # of the central differences, in logarithms of a lever
NEAR = 2  # batches in each direction that are tried around those of an optimum that is known
REACHED = 2.0  # ratio of batches within which a polish finds the better one
STATIONARY = 1e-3  # residual of optimality above which an envelope derivative is not to be trusted


@dataclass(frozen=True)
class Start:
    """A family as a search starts on it: how its shop is made under a catalogue, its designs on the front, layouts and formats."""

    family: str
    shop: Callable[[Catalog], Shop]
    designs: tuple[Mapping[str, Any], ...]
    grid: Grid


@dataclass(frozen=True)
class Asked:
    """Which cost is minimised: a case, the owner, the limit on the time per token [s]; ``many``: whether a hundred designs are polished."""

    case: Case
    scenario: str
    limit_s: float
    many: bool = False


def polished(
    start: Start,
    catalog: Catalog,
    asked: Asked,
    decisions: Any,
    layout: Any = None,
    rounds: int = 2,
    each: int = 1,
    cycles: int = 0,
    walk: int | None = None,
) -> Finished | None:
    """One design of a family polished under a catalogue, from its decisions (and layout); None where it comes near no limit."""
    prices = as_floats(catalog.prices[asked.scenario])
    case, limit_s = asked.case, asked.limit_s
    return polish(
        start.shop(catalog), decisions, case, prices, limit_s, start.grid, layout, None, rounds, each, 0, cycles, walk, asked.many
    )


def slopes(start: Start, catalog: Catalog, asked: Asked, found: Finished, levers: Sequence[Sequence[Place]]) -> tuple[np.ndarray, float]:
    """d ln (optimal cost) / d ln (lever) for groups of numbers multiplied together, layout kept; and the residual of optimality.

    Args:
        start, catalog, asked: What was polished. found: The polished design. levers: Places of each.
    """

    def at(book: Catalog) -> Any:
        prices = as_floats(book.prices[asked.scenario])
        return bundle(start.shop(book), found.decisions, asked.case, prices, asked.limit_s, found.layout, many=asked.many)

    point, middle = at(catalog)
    w = weights(middle, point)
    out = []
    for places in levers:
        (_, up), (_, down) = (at(scaled(catalog, places, float(np.exp(sign * STEP)))) for sign in (1, -1))
        cost, slack = (up.log_cost - down.log_cost) / (2 * STEP), (up.slack - down.slack) / (2 * STEP)
        out.append(float(w.slope(cost, slack)))
    return np.array(out), w.residual


def reoptimised(
    start: Start,
    catalog: Catalog,
    asked: Asked,
    chips: int,
    seed: int,
    known: Finished | None = None,
    limits_s: Sequence[float] = (),
    walk: int | None = None,
) -> Finished | None:
    """The best design of a family under a catalogue: chips bred, and the best of them polished, and so a design known from nearby.

    Args:
        start: The family with its designs on the front; without designs the search begins from nothing. chips: Bred.
        known: An optimum under another catalogue. limits_s: Further limits on the time per token to breed for: they keep designs apart.
        walk: How many batches beside the one that screening found the polish tries in each direction, at most; around those of a known
            optimum it tries NEAR.
    """
    shop = start.shop(catalog)
    case = replace(asked.case, prices=(as_floats(catalog.prices[asked.scenario]),))
    niche = Niche(case, (asked.limit_s, *(t for t in limits_s if t != asked.limit_s)))
    designs = [*(dict(d) for d in start.designs), *([known.decisions] if known else [])]
    points = points_of(shop.space, designs)[1] if designs else np.empty((0, shop.space.dimension))
    best = np.concatenate([breed(shop, [niche], start.grid, points, chips, seed, "anew"), points])[:BLOCK]
    again = polished(start, catalog, asked, known.decisions, known.layout, 1, 0, walk=NEAR) if known else None
    found = [again]
    if len(best):
        _, values, kept = canonical(shop.space, best)
        block: Any = column(build_block(shop, pad(values, BLOCK)).chip, BLOCK)
        table = layout_table(case.model, start.grid)
        screened, _ = screen(block, case, start.grid, table, (asked.limit_s,))
        costs = screened.cost[0, 0, : len(kept)]
        if np.isfinite(costs).any():
            i = int(np.argmin(costs))
            row, fmt = table[screened.layout[0, 0, i]], start.grid.formats[screened.format[0, 0, i]]
            layout = dict(zip(("tp", "pp", "dp", "ep", "batch"), row.tolist(), strict=True)) | {"format": fmt}
            decisions = shop.space.named({n: x[i : i + 1] for n, x in values.items()})
            if again is None or not again.feasible or not _alike(shop, again, decisions, layout):
                found.append(polished(start, catalog, asked, decisions, layout, 1, 0, walk=walk))
    return min((f for f in found if f and f.feasible), key=lambda f: f.cost, default=None)


def _alike(shop: Shop, found: Finished, decisions: Mapping[str, Any], layout: Mapping[str, Any]) -> bool:
    """Whether a polish of a design in a layout moves over the ground of one that was made: what a polish leaves alone is the same."""
    stays = [v.name for i, v in enumerate(shop.space.variables) if i not in free_of(shop)]
    same = all(found.decisions[n] == decisions[n] for n in stays) and all(found.layout[n] == x for n, x in layout.items() if n != "batch")
    return same and 1 / REACHED <= layout["batch"] / found.layout["batch"] <= REACHED
