"""Which boxes cover the domain? Roots, halves that meet at fixed points, and trees of halves that can be written and read again.

A root is one choice of every named variable with one way of cutting the model and one format of the grid; it is halved along its variables
and along its batches. The tree of a root, written as a string, tells which boxes cover it.
"""

from __future__ import annotations

import base64
import itertools
import lzma
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dse.search.bounds import Problem
from dse.search.grid import layout_table
from dse.space import Variable

LONGEST = 40_000  # characters of trees that a certificate keeps; a check of others cuts the domain anew
FIRST = 2**16  # boxes for which there is room at first
NODE = {"bound": np.float64, "root": np.int32, "cut": np.int8, "child": np.int32}


@dataclass(frozen=True)
class Roots:
    """All roots of a problem: boxes ``(n, d + 1)``, layout rows ``(n, 5)``, their batch unused, and positions of formats ``(n,)``.

    The last column of boxes is the position of the batch in the grid.
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    formats: np.ndarray


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


def kinds_of(problem: Problem) -> np.ndarray:
    """Kind of every variable and of the batch, as ``halves`` takes them."""
    return np.array([*(2 if v.kind != "real" else 1 if v.log else 0 for v in problem.shop.space.variables), 2])


def widths(low: np.ndarray, high: np.ndarray, problem: Problem) -> np.ndarray:
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


class Pool:
    """Rows of several arrays, put in at the end and taken out anywhere, without copying the others."""

    def __init__(self, **first: np.ndarray) -> None:
        self.count = len(next(iter(first.values())))
        room = max(FIRST, self.count)
        self._rows = {k: np.empty((room, *v.shape[1:]), v.dtype) for k, v in first.items()}
        for name, values in first.items():
            self._rows[name][: self.count] = values

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rows[name][: self.count]

    def put(self, **more: np.ndarray) -> None:
        """Add rows."""
        n = len(next(iter(more.values())))
        room = len(self._rows[next(iter(more))])
        if self.count + n > room:
            grown = max(2 * room, self.count + n)
            for name, old in self._rows.items():
                self._rows[name] = np.empty((grown, *old.shape[1:]), old.dtype)
                self._rows[name][: self.count] = old[: self.count]
        for name, values in more.items():
            self._rows[name][self.count : self.count + n] = values
        self.count += n

    def take(self, at: np.ndarray) -> dict[str, np.ndarray]:
        """Rows, which leave; the last ones fill their places."""
        found = {name: rows[at].copy() for name, rows in self._rows.items()}
        left = self.count - len(at)
        out = np.zeros(self.count, bool)
        out[at] = True
        holes, movers = np.flatnonzero(out[:left]), left + np.flatnonzero(~out[left:])
        for rows in self._rows.values():
            rows[holes] = rows[movers]
        self.count = left
        return found


# --- trees -----------------------------------------------------------------------------------------------------------------


def _letter(variable: int) -> str:
    return chr(ord("a") + variable)


def _text(nodes: Pool, node: int, claimed: float) -> str:
    """A box in preorder: the letter of the variable it is halved along and its halves, or a dot."""
    cut, bound, child = nodes["cut"], nodes["bound"], nodes["child"]
    out, stack = [], [node]
    while stack:
        at = stack.pop()
        if cut[at] < 0 or bound[at] >= claimed:
            out.append(".")
        else:
            out.append(_letter(int(cut[at])))
            stack += [int(child[at]) + 1, int(child[at])]
    return "".join(out)


def written(nodes: Pool, claimed: float, count: int) -> str:
    """Trees of those of the first ``count`` boxes, the roots, whose own bound is below the claim; nothing where that is too long."""
    cut = np.flatnonzero((nodes["cut"][:count] >= 0) & (nodes["bound"][:count] < claimed))
    if np.count_nonzero(nodes["bound"] < claimed) > 10 * LONGEST:
        return ""
    lines = "\n".join(f"{nodes['root'][node]} {_text(nodes, int(node), claimed)}" for node in cut)
    text = base64.b64encode(lzma.compress(lines.encode(), preset=9)).decode()
    return text if len(text) <= LONGEST else ""


def read_trees(trees: str) -> dict[int, str]:
    """The tree of every root that has one."""
    lines = lzma.decompress(base64.b64decode(trees)).decode().splitlines()
    return {int(line.split()[0]): line.split()[1] for line in lines}


def leaves(text: str, low: np.ndarray, high: np.ndarray, kinds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
