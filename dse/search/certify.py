"""How far can the cheapest chip found be from the cheapest there is? Branch and bound over boxes of design variables, at any time.

A root is one choice of every named variable with one way of cutting the model and one format of the grid; it is halved along its variables
and along its batches, the lowest bounds first. Halves meet at fixed points, so that the tree of a root, written as a string, tells which
boxes cover it: a certificate can be checked by bounding those boxes again.
"""

from __future__ import annotations

import base64
import itertools
import lzma
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from dse.evaluate import evaluate
from dse.search.bounds import Problem, bounder
from dse.search.designs import build_block
from dse.search.layouts import is_mixture, layout_table, to_layout
from dse.space import Variable
from dse.types import Deployment, named_format

ROUND = 16384  # boxes halved in a round
SAMPLE = 160  # boxes of a round in which every variable is tried, to learn which one to halve
TRIES = 4096  # points tried for a better design
TRY_EACH = 2  # rounds
EXACT = 64  # designs evaluated exactly in a round
SCALES = np.array([0.003, 0.02, 0.1])  # steps around the incumbent, in the unit cube
LONGEST = 40_000  # characters of trees that a certificate keeps; a check of others cuts the domain anew
TIGHT = 1e-12  # relative: what a bound may differ when it is computed again
Bound = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Roots:
    """All roots of a problem: boxes ``(n, d + 1)``, layout rows ``(n, 5)``, their batch unused, and positions of formats ``(n,)``.

    The last column of boxes is the position of the batch in the grid.
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    formats: np.ndarray


@dataclass
class Tree:
    """Every box so far; ``cut`` is the variable along which one was halved (-1: not), ``child`` the position of its lower half."""

    low: np.ndarray
    high: np.ndarray
    root: np.ndarray
    bound: np.ndarray
    cut: np.ndarray
    child: np.ndarray


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


def roots_of(problem: Problem) -> Roots:
    """The whole domain: every combination of choices with every layout and format; other variables and batches over their range."""
    space, table = problem.shop.space, layout_table(problem.case.model, problem.grid)
    ends = [_ends(v) for v in space.variables]
    boxes = np.array(list(itertools.product(*ends)), float)  # (combinations, d, 2)
    cuts, first = np.unique(table[:, :4], axis=0, return_index=True)
    batches = np.asarray(problem.grid.batches, float)
    least = np.array([np.searchsorted(batches, table[np.all(table[:, :4] == c, axis=1), 4].min()) for c in cuts], float)
    rows = np.concatenate([cuts, table[first, 4:]], axis=1)
    count, formats = len(boxes), len(problem.grid.formats)
    each = len(rows) * formats
    box = np.repeat(boxes, each, axis=0)
    lowest = np.tile(np.repeat(least, formats), count)
    low = np.concatenate([box[..., 0], lowest[:, None]], axis=1)
    high = np.concatenate([box[..., 1], np.full((len(box), 1), len(batches) - 1.0)], axis=1)
    return Roots(low, high, np.tile(np.repeat(rows, formats, axis=0), (count, 1)), np.tile(np.arange(formats), count * len(rows)))


def _ends(v: Variable) -> list[tuple[float, float]]:
    if v.kind == "choice":
        return [(float(v.choices.index(name)),) * 2 for name in v.names]
    return [(v.low, v.high)]


def halves(low: np.ndarray, high: np.ndarray, cut: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper halves of boxes along one variable each; whole numbers lie in one half only. ``kinds``: 0 real, 1 log, 2 int."""
    at = np.arange(len(low))
    a, b, kind = low[at, cut], high[at, cut], kinds[cut]
    middle = np.where(kind == 1, np.sqrt(np.maximum(a * b, 0.0)), (a + b) / 2)
    middle = np.where(kind == 2, np.floor(middle), middle)
    top, bottom = high.copy(), low.copy()
    top[at, cut] = middle
    bottom[at, cut] = np.where(kind == 2, middle + 1, middle)
    return low, top, bottom, high


def _kinds(problem: Problem) -> np.ndarray:
    return np.array([*(2 if v.kind != "real" else 1 if v.log else 0 for v in problem.shop.space.variables), 2])


def _widths(low: np.ndarray, high: np.ndarray, problem: Problem) -> np.ndarray:
    """Widths of boxes relative to the whole range; 0 where a variable cannot be halved."""
    columns = []
    for i, v in enumerate(problem.shop.space.variables):
        if v.kind == "choice" or v.high == v.low:
            columns.append(np.zeros(len(low)))
        elif v.log:
            columns.append(np.log(high[:, i] / low[:, i]) / np.log(v.high / v.low))
        else:
            columns.append((high[:, i] - low[:, i]) / (v.high - v.low))
    columns.append((high[:, -1] - low[:, -1]) / max(len(problem.grid.batches) - 1, 1))
    return np.stack(columns, axis=1)


def _gains(
    low: np.ndarray, high: np.ndarray, now: np.ndarray, rows: np.ndarray, formats: np.ndarray, bound: Bound, problem: Problem, top: float
):
    """What halving along each variable raises the bound by, per relative width: array (d,)."""
    widths, kinds = _widths(low, high, problem), _kinds(problem)
    gains = np.zeros(widths.shape[1])
    floor = np.clip(now, 0.0, top)
    which, cut = np.nonzero(widths > 0)
    a, b, c, d = halves(low[which], high[which], cut, kinds)
    at = np.tile(which, 2)
    both = np.clip(bound(np.concatenate([a, c]), np.concatenate([b, d]), rows[at], formats[at]), floor[at], top).reshape(2, -1)
    gains += np.bincount(cut, both.sum(axis=0) - 2 * floor[which], len(gains)) / np.maximum(widths.sum(axis=0), 1e-12)
    return gains + 1e-3 * gains.max() + 1e-12


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


def _candidates(problem: Problem, best: Incumbent, tree: Tree, chosen: np.ndarray, roots: Roots, rng: np.random.Generator):
    """Points in the boxes with the lowest bounds, and around the incumbent."""
    space = problem.shop.space
    picked = chosen[rng.integers(len(chosen), size=TRIES)]
    low, high = tree.low[picked], tree.high[picked]
    points = low + rng.random(low.shape) * (high - low)
    rows, formats = roots.rows[tree.root[picked]], roots.formats[tree.root[picked]]
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


def _halve(tree: Tree, chosen: np.ndarray, roots: Roots, bound: Bound, problem: Problem, top: float, rng: np.random.Generator) -> Tree:
    sample = rng.choice(chosen, SAMPLE)
    at = tree.root[sample]
    gains = _gains(tree.low[sample], tree.high[sample], tree.bound[sample], roots.rows[at], roots.formats[at], bound, problem, top)
    widths = _widths(tree.low[chosen], tree.high[chosen], problem)
    cut = np.argmax(gains * widths, axis=1)
    boxes = halves(tree.low[chosen], tree.high[chosen], cut, _kinds(problem))
    low, high = (np.concatenate([boxes[i], boxes[i + 2]]) for i in (0, 1))
    root = np.tile(tree.root[chosen], 2)
    found = np.maximum(bound(low, high, roots.rows[root], roots.formats[root]), np.tile(tree.bound[chosen], 2))
    # lower and upper half lie beside each other
    order = np.arange(2 * len(chosen)).reshape(2, -1).T.ravel()
    tree.cut[chosen] = cut
    tree.child[chosen] = len(tree.bound) + 2 * np.arange(len(chosen))
    none = np.full(2 * len(chosen), -1)
    return Tree(
        low=np.concatenate([tree.low, low[order]]),
        high=np.concatenate([tree.high, high[order]]),
        root=np.concatenate([tree.root, root[order]]),
        bound=np.concatenate([tree.bound, found[order]]),
        cut=np.concatenate([tree.cut, none]),
        child=np.concatenate([tree.child, none]),
    )


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
    tree = Tree(roots.low[kept], roots.high[kept], kept, values[kept], none, none.copy())
    best, history = start or Incumbent(), []
    for turn in itertools.count():
        open_ = np.flatnonzero((tree.cut < 0) & (tree.bound < best.cost))
        lowest = float(min(tree.bound[open_].min(), best.cost)) if len(open_) else best.cost
        spent = time.process_time() - begin
        history.append((spent, best.cost, lowest))
        if not len(open_) or lowest >= best.cost * (1 - target) or spent > seconds or len(tree.bound) > boxes:
            break
        order = open_ if len(open_) <= ROUND else open_[np.argpartition(tree.bound[open_], ROUND)[:ROUND]]
        divisible = order[_widths(tree.low[order], tree.high[order], problem).max(axis=1) > 0]
        if not len(divisible):
            break
        if turn % TRY_EACH == 0 or not np.isfinite(best.cost):
            best = _improve(best, problem, bound, *_candidates(problem, best, tree, divisible, roots, rng))
        divisible = divisible[tree.bound[divisible] < best.cost]
        if len(divisible):
            top = best.cost if np.isfinite(best.cost) else ceiling
            tree = _halve(tree, divisible, roots, bound, problem, top, rng)
    return Proof(
        best, lowest, len(values) - len(kept) + len(tree.bound), spent, _written(tree, lowest, len(kept)), len(values), tuple(history)
    )


# --- the cover of the domain ------------------------------------------------------------------------------------------------


def _letter(variable: int) -> str:
    return chr(ord("a") + variable)


def _text(tree: Tree, node: int, claimed: float) -> str:
    """A box in preorder: the letter of the variable it is halved along and its halves, or a dot."""
    out, stack = [], [node]
    while stack:
        at = stack.pop()
        if tree.cut[at] < 0 or tree.bound[at] >= claimed:
            out.append(".")
        else:
            out.append(_letter(int(tree.cut[at])))
            stack += [int(tree.child[at]) + 1, int(tree.child[at])]
    return "".join(out)


def _written(tree: Tree, claimed: float, count: int) -> str:
    """Trees of those of the first ``count`` boxes, the roots, whose own bound is below the claim; nothing where that is too long."""
    cut = np.flatnonzero((tree.cut[:count] >= 0) & (tree.bound[:count] < claimed))
    lines = "\n".join(f"{tree.root[node]} {_text(tree, int(node), claimed)}" for node in cut)
    text = base64.b64encode(lzma.compress(lines.encode(), preset=9)).decode()
    return text if len(text) <= LONGEST else ""


def _leaves(text: str, low: np.ndarray, high: np.ndarray, kinds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Boxes of a root's tree; they cover it, because each box is replaced by its two halves."""
    stack = [(low, high)]
    for letter in text:
        if not stack:
            raise ValueError("a tree goes on after its last leaf")
        a, b = stack.pop()
        if letter == ".":
            yield a, b
            continue
        lower_a, lower_b, upper_a, upper_b = halves(a[None], b[None], np.array([ord(letter) - ord("a")]), kinds)
        stack += [(upper_a[0], upper_b[0]), (lower_a[0], lower_b[0])]
    if stack:
        raise ValueError("a tree ends before its last leaf")


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
    lines = lzma.decompress(base64.b64decode(trees)).decode().splitlines()
    text = {int(line.split()[0]): line.split()[1] for line in lines}
    values = bound(roots.low, roots.high, roots.rows, roots.formats)
    values[list(text)] = np.inf  # their leaves stand for them
    kinds, low, high, root = _kinds(problem), [], [], []
    for r, tree in text.items():
        for a, b in _leaves(tree, roots.low[r], roots.high[r], kinds):
            low.append(a)
            high.append(b)
            root.append(r)
    least = float(values.min())
    if root:
        least = min(least, float(bound(np.array(low), np.array(high), roots.rows[root], roots.formats[root]).min()))
    return least, len(values) - len(text) + len(root)
