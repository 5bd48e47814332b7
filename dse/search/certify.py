"""How far can the cheapest chip found be from the cheapest there is? Branch and bound over boxes of design variables, at any time.

The boxes with the lowest bounds are halved first, along the variable that raises bounds most (``boxes`` has the roots, the halves and the
trees). A certificate can be checked by bounding the boxes of its trees again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from dse.chips.common import COMMON
from dse.evaluate import evaluate
from dse.search.bounds import Problem, bounder
from dse.search.boxes import NODE, Pool, Roots, halves, kinds_of, leaves, read_trees, roots_of, widths, written
from dse.search.designs import build_block
from dse.search.grid import is_mixture, to_layout
from dse.types import Deployment, named_format

ROUND = 16384  # boxes halved in a round, at least
SHARE = 1 / 8  # of those that are open: so that sorting them costs little beside bounding them
MOST = 131_072
SAMPLE = 160  # boxes of a round in which every variable is tried, to learn which one to halve
FADING = 0.5  # of what earlier rounds taught
SHARED = 4.0  # boxes that what holds for all kinds of roots is worth, for each of them
TRIES = 4096  # points tried for a better design
TRY_EACH = 2  # rounds
EXACT = 64  # designs evaluated exactly in a round
SCALES = np.array([0.003, 0.02, 0.1])  # steps around the incumbent, in the unit cube
TIGHT = 1e-12  # relative: what a bound may differ when it is computed again
Bound = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Incumbent:
    """The cheapest design found, evaluated exactly."""

    cost: float = np.inf
    point: np.ndarray | None = None
    row: np.ndarray | None = None
    format: int = -1


@dataclass(frozen=True)
class Proof:
    """What branch and bound ends with; costs in USD per million output tokens."""

    optimum: Incumbent
    bound: float
    boxes: int
    seconds: float
    trees: str
    roots: int
    history: tuple[tuple[float, float, float], ...] = field(default=())  # seconds, optimum, bound

    @property
    def gap(self) -> float:
        """Largest share of the optimum's cost that a better design could save."""
        return float(1.0 - self.bound / self.optimum.cost) if np.isfinite(self.optimum.cost) else np.inf


class _Gains:
    """What halving along each variable raises bounds by, per relative width: learnt round by round, apart for kinds of roots.

    A kind is one combination of a family's own choices (memory, variant, ...), because these decide which variables matter at all: without
    memory outside, the number of its stacks does not. What all kinds share is worth ``SHARED`` boxes.
    """

    def __init__(self, problem: Problem, roots: Roots) -> None:
        common = {v.name for v in COMMON}
        own = [i for i, v in enumerate(problem.shop.space.variables) if v.kind == "choice" and v.name not in common]
        self.problem, self.kind = problem, np.unique(roots.low[:, own], axis=0, return_inverse=True)[1].ravel()
        self.raised, self.width = np.zeros((2, self.kind.max(initial=0) + 1, roots.low.shape[1]))

    def look(
        self, low: np.ndarray, high: np.ndarray, now: np.ndarray, root: np.ndarray, roots: Roots, bound: Bound, top: float
    ) -> np.ndarray:
        """Halve some boxes along every variable; gains by kind and variable: array (kinds, d)."""
        wide, kinds = widths(low, high, self.problem), kinds_of(self.problem)
        floor = np.clip(now, 0.0, top)
        which, cut = np.nonzero(wide > 0)
        a, b, c, d = halves(low[which], high[which], cut, kinds)
        at = np.tile(which, 2)
        parts = np.concatenate([a, c]), np.concatenate([b, d]), roots.rows[root[at]], roots.formats[root[at]]
        both = np.clip(bound(*parts), floor[at], top).reshape(2, -1)
        rise = np.zeros_like(wide)
        rise[which, cut] = both.sum(axis=0) - 2 * floor[which]
        shared = rise.sum(axis=0) / np.maximum(wide.sum(axis=0), 1e-12)
        self.raised, self.width = FADING * self.raised, FADING * self.width
        np.add.at(self.raised, self.kind[root], rise)
        np.add.at(self.width, self.kind[root], wide)
        some = SHARED * wide.mean(axis=0)
        gains = (self.raised + some * shared) / np.maximum(self.width + some, 1e-12)
        return gains + 1e-3 * gains.max(axis=1, keepdims=True) + 1e-12


def with_batch(problem: Problem, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Layout rows with the batch of points ``(n, d + 1)``."""
    batches = np.asarray(problem.grid.batches, float)
    return np.concatenate([rows[:, :4], batches[points[:, -1].astype(int)][:, None]], axis=1)


def exact(problem: Problem, points: np.ndarray, rows: np.ndarray, formats: np.ndarray) -> np.ndarray:
    """Cost of designs in layouts by the model itself, infinite where a limit is broken: arrays (n,)."""
    shop, case = problem.shop, problem.case
    chip = build_block(shop, {name: points[:, i] for i, name in enumerate(shop.space.names)}).chip
    hot = jax.tree.map(lambda *xs: np.array(xs, float)[formats], *[named_format(f) for f in problem.grid.formats])
    layout = to_layout(rows, None, is_mixture(case.model))
    prices = case.prices[problem.scenario]
    m = evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=replace(layout, format=hot), prices=prices))
    met = np.asarray(m.feasible) & (np.asarray(m.tpot_s) <= problem.limit_s) & (np.asarray(m.ttft_s) <= case.ttft_limit_s)
    return np.where(met, np.asarray(m.usd_per_million_output_token), np.inf)


def _improve(best: Incumbent, problem: Problem, bound: Bound, points: np.ndarray, rows: np.ndarray, formats: np.ndarray) -> Incumbent:
    """The incumbent or something cheaper among points: the bound of a point says which are worth an exact evaluation."""
    near = bound(points, points, rows, formats)
    order = np.argsort(near)[:EXACT]
    order = order[near[order] < best.cost]
    if not len(order):
        return best
    padded = np.concatenate([order, np.repeat(order[-1:], EXACT - len(order))])
    placed = with_batch(problem, points[padded], rows[padded])
    costs = exact(problem, points[padded, :-1], placed, formats[padded])
    i = int(np.argmin(costs))
    if costs[i] >= best.cost:
        return best
    return Incumbent(float(costs[i]), points[padded[i], :-1], placed[i], int(formats[padded[i]]))


def roots_least(problem: Problem, row: np.ndarray) -> np.ndarray:
    """Position of the smallest batch of layouts ``(5,)`` or ``(5, n)``: one request for each attention rank."""
    return np.searchsorted(problem.grid.batches, row[2])


def _candidates(
    problem: Problem, best: Incumbent, low: np.ndarray, high: np.ndarray, root: np.ndarray, roots: Roots, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the boxes with the lowest bounds, and around the incumbent."""
    space = problem.shop.space
    picked = rng.integers(len(low), size=TRIES)
    points = low[picked] + rng.random((TRIES, low.shape[1])) * (high[picked] - low[picked])
    rows, formats = roots.rows[root[picked]], roots.formats[root[picked]]
    if best.point is not None and best.row is not None:
        half = TRIES // 2
        cube = space.encode({n: best.point[i : i + 1] for i, n in enumerate(space.names)}).repeat(half, axis=0)
        touched = rng.random(cube.shape) < np.maximum(rng.random((half, 1)), 1 / space.dimension)
        cube = np.clip(cube + rng.choice(SCALES, (half, 1)) * rng.standard_normal(cube.shape) * touched, 0.0, 1.0)
        decoded = space.decode(cube)
        points[:half, :-1] = np.stack([decoded[n] for n in space.names], axis=1)
        keep = rng.random(half) < 0.7  # the others try the layout of a promising box
        rows[:half][keep], formats[:half][keep] = best.row, best.format
        batch = np.searchsorted(problem.grid.batches, best.row[4]) + np.round(2 * rng.standard_normal(half))
        points[:half, -1][keep] = np.clip(batch, roots_least(problem, best.row), len(problem.grid.batches) - 1)[keep]
    whole = np.array([*(v.kind == "int" for v in space.variables), True])
    return np.where(whole, np.round(points), points), rows, formats


@dataclass
class _Search:
    """What branch and bound keeps: the boxes that may hold something better, and of every box so far its bound and how it was halved."""

    problem: Problem
    roots: Roots
    bound: Bound
    open: Pool  # low, high and the node of each box
    gains: _Gains
    nodes: Pool  # ``boxes.NODE``; ``cut`` is the variable along which a box was halved (-1: not), ``child`` the node of its lower half
    aside: float = np.inf  # lowest bound of the boxes that need not be halved

    def keep(self, low: np.ndarray, high: np.ndarray, node: np.ndarray, enough: float) -> None:
        """Boxes to be halved later, where their bound leaves room for something better."""
        bounds = self.nodes["bound"][node]
        better = (bounds < enough) & (widths(low, high, self.problem).max(axis=1, initial=0.0) > 0)
        self.aside = min(self.aside, float(bounds[~better].min(initial=np.inf)))
        self.open.put(low=low[better], high=high[better], node=node[better])

    def lowest(self, best: float) -> float:
        """The lowest bound that is left."""
        return min(float(self.nodes["bound"][self.open["node"]].min(initial=np.inf)), self.aside, best)

    def next(self, enough: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The boxes with the lowest bounds, which leave."""
        bounds = self.nodes["bound"][self.open["node"]]
        count = min(max(ROUND, min(round(SHARE * len(bounds)), MOST)), len(bounds))
        taken = self.open.take(np.argpartition(bounds, count - 1)[:count])
        now = self.nodes["bound"][taken["node"]]
        self.aside = min(self.aside, float(now[now >= enough].min(initial=np.inf)))
        return tuple(taken[k][now < enough] for k in ("low", "high", "node"))  # type: ignore[return-value]

    def halve(self, low: np.ndarray, high: np.ndarray, node: np.ndarray, top: float, enough: float, rng: np.random.Generator) -> None:
        """Replace boxes by their halves along the variable that promises most."""
        roots, root, now = self.roots, self.nodes["root"][node], self.nodes["bound"][node]
        sample = rng.choice(len(node), SAMPLE)
        gains = self.gains.look(low[sample], high[sample], now[sample], root[sample], roots, self.bound, top)
        cut = np.argmax(gains[self.gains.kind[root]] * widths(low, high, self.problem), axis=1)
        boxes = halves(low, high, cut, kinds_of(self.problem))
        # lower and upper half lie beside each other
        low, high = (np.stack([boxes[i], boxes[i + 2]], axis=1).reshape(2 * len(node), -1) for i in (0, 1))
        both = np.repeat(root, 2)
        found = np.maximum(self.bound(low, high, roots.rows[both], roots.formats[both]), np.repeat(now, 2))
        first = self.nodes.count
        self.nodes["cut"][node] = cut
        self.nodes["child"][node] = first + 2 * np.arange(len(node))
        none = np.full(2 * len(node), -1)
        self.nodes.put(bound=found, root=both, cut=none, child=none)
        self.keep(low, high, first + np.arange(2 * len(node)), enough)


def prove(
    problem: Problem, seconds: float, start: Incumbent | None = None, target: float = 0.001, seed: int = 0, boxes: int = 4_000_000
) -> Proof:
    """Branch and bound for a time.

    Args:
        problem: What is minimised. seconds: Of computing (CPU time), after compilation.
        start: A design known already. target: Relative gap at which to stop.
        boxes: Stop at this many.

    Returns: ``Proof``; without any feasible design its optimum is infinite, and so is its bound where none can exist.
    """
    bound, roots, rng = bounder(problem), roots_of(problem), np.random.default_rng(seed)
    some = np.zeros(1, int)
    bound(roots.low[some], roots.high[some], roots.rows[some], roots.formats[some])  # compiles
    first = np.repeat(some, EXACT)
    exact(problem, roots.low[first, :-1], with_batch(problem, roots.low[first], roots.rows[first]), roots.formats[first])
    begin = time.process_time()
    values = bound(roots.low, roots.high, roots.rows, roots.formats)
    ceiling = float(np.max(values[np.isfinite(values)], initial=0.0))  # of gains, while no design is known
    kept = np.flatnonzero(np.isfinite(values))  # the others hold nothing feasible
    none = np.full(len(kept), -1)
    start_nodes = {"bound": values[kept], "root": kept, "cut": none, "child": none}
    nodes = Pool(**{k: v.astype(NODE[k]) for k, v in start_nodes.items()})
    empty = roots.low[:0]
    search = _Search(problem, roots, bound, Pool(low=empty, high=empty, node=kept[:0]), _Gains(problem, roots), nodes)
    search.keep(roots.low[kept], roots.high[kept], np.arange(len(kept)), np.inf)
    best, history = start or Incumbent(), []
    for turn in itertools.count():
        lowest, spent, enough = search.lowest(best.cost), time.process_time() - begin, best.cost * (1 - target)
        history.append((spent, best.cost, lowest))
        if not search.open.count or lowest >= enough or spent > seconds or nodes.count > boxes:
            break
        low, high, node = search.next(enough)
        if len(node) and (turn % TRY_EACH == 0 or not np.isfinite(best.cost)):
            best = _improve(best, problem, bound, *_candidates(problem, best, low, high, nodes["root"][node], roots, rng))
        if len(node):
            top = best.cost if np.isfinite(best.cost) else ceiling
            search.halve(low, high, node, top, best.cost * (1 - target), rng)
    count = len(values) - len(kept) + nodes.count
    return Proof(best, lowest, count, spent, written(nodes, lowest, len(kept)), len(values), tuple(history))


def check(problem: Problem, claimed: float, trees: str, boxes: int = 4_000_000) -> tuple[float, int]:
    """Bound the whole domain again: the lowest bound of all leaves, and their number.

    Along the recorded trees; where they were too large to be kept the domain is cut anew, until nothing is left below the claim.

    Args:
        boxes: How many may be cut at most where there are no trees.

    Raises:
        ValueError: the trees do not cover their roots.
    """
    if not trees:
        again = prove(problem, np.inf, Incumbent(claimed), target=0.0, boxes=boxes)
        return min(again.bound, again.optimum.cost), again.boxes
    bound, roots = bounder(problem), roots_of(problem)
    text = read_trees(trees)
    values = bound(roots.low, roots.high, roots.rows, roots.formats)
    values[list(text)] = np.inf  # their leaves stand for them
    kinds, low, high, root = kinds_of(problem), [], [], []
    for r, tree in text.items():
        for a, b in leaves(tree, roots.low[r], roots.high[r], kinds):
            low.append(a)
            high.append(b)
            root.append(r)
    least = float(values.min())
    if root:
        least = min(least, float(bound(np.array(low), np.array(high), roots.rows[root], roots.formats[root]).min()))
    return least, len(values) - len(text) + len(root)
