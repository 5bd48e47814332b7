"""Which numbers make a constant on one chip? A centre, and offsets shared by formats, implementations, chips or groups of chips.

In the logarithm (or logit) a constant is a sum of effects. An effect is written ``of@by``: *of* the operators it holds for (``kind``: all
formats and implementations that are fitted together; ``format``; ``fit``: one implementation in one format) and *by* which chips it
differs (``all``: none; ``group``; ``generation``; ``chip``: as an offset of chips of one generation from each other, and of one that a
user adds, not of a chip that is alone in its generation), or which group or generation alone has it (by its name: one number for that
one, none for other chips). The first effect of a leaf is its centre, with the leaf's own prior; the
others scatter about zero, so that a chip without rows takes the centre and what is known of its group and generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dse.calibrate.plan import Fit, Leaf, Plan

Key = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One implementation in one format on one chip: the rows that share their constants."""

    part: str
    rows: tuple[str, ...]  # implementations
    chip: str
    group: str
    generation: str
    leaves: tuple[Leaf, ...]
    cache_byte: float = 0.0  # last-level cache of the chip
    new: bool = False  # whether it is a chip that a user adds

    @property
    def kernel(self) -> Key:
        """The implementation, whatever the chip."""
        return (self.part, *self.rows)

    def free(self, name: str) -> Leaf | None:
        """A leaf that is fitted here, by its name."""
        return next((leaf for leaf in self.leaves if leaf.name == name and not leaf.fixed), None)

    def centre(self, leaf: Leaf) -> float:
        """Where a leaf is fitted from on this chip, in logarithm or logit: a share of its cache counts by the size of that."""
        return leaf.base + (float(np.log(max(self.cache_byte, 1.0))) if leaf.of_cache else 0.0)

    def key(self, effect: str) -> Key | None:
        """What cells share the number of an effect: those with the same key; none where it does not hold."""
        of, by = effect.split("@")
        where = {"all": "", "group": self.group, "generation": self.generation, "chip": self.chip}.get(by, by)
        if where == by and by not in (self.group, self.generation):
            return None
        return ({"kind": (), "format": (self.part,), "fit": self.kernel}[of]) + (by, where)


@dataclass(frozen=True)
class Slot:
    """A free number: the leaf that it belongs to, the cells that it moves, and its prior's standard deviation about zero."""

    leaf: str
    cells: frozenset[int]
    sd: float


def cell_of(fit: Fit, kernel: int, chip: str, plan: Plan, cache_byte: float = 0.0) -> Cell:
    """The cell of a fit on a chip that ran its ``kernel``-th set of implementations."""
    generation, new = plan.generations.get(chip, chip), chip in plan.new
    return Cell(fit.part, fit.rows[kernel], chip, plan.group_of(chip), generation, fit.leaves, cache_byte, new)


def slots_of(names: Sequence[str], cells: Sequence[Cell], plan: Plan) -> list[Slot]:
    """The free numbers of the leaves; effects that move the same cells are one number, with both variances."""
    found: dict[tuple[str, frozenset[int]], float] = {}
    chips_of: dict[str, set[str]] = {}
    for cell in cells:
        chips_of.setdefault(cell.generation, set()).add(cell.chip)
    for name in names:
        shared: dict[Key, list[int]] = {}
        sd: dict[Key, float] = {}
        for i, cell in enumerate(cells):
            leaf = cell.free(name)
            for place, effect in enumerate(leaf.effects if leaf else ()):
                own = cell.key(effect)
                alone = place and effect.endswith("@chip") and len(chips_of[cell.generation]) == 1 and not cell.new
                if own is None or alone:
                    continue
                key = (effect, *own)
                shared.setdefault(key, []).append(i)
                wide = leaf.spread * plan.scatter[effect] if place and leaf else leaf.sd if leaf else 0.0
                sd[key] = min(sd.get(key, wide), wide)
        for key, members in shared.items():
            slot = (name, frozenset(members))
            found[slot] = float(np.hypot(found.get(slot, 0.0), sd[key]))
    return [Slot(name, members, sd) for (name, members), sd in found.items()]


def maps_of(slots: Sequence[Slot], names: Sequence[str], cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """For each leaf the matrix from the vector of free numbers to its value in each cell (in log or logit, from the prior's centre)."""
    made = {name: np.zeros((len(cells), len(slots))) for name in names}
    for j, slot in enumerate(slots):
        made[slot.leaf][sorted(slot.cells), j] = 1.0
    return made


def unseen_row(name: str, matrix: np.ndarray, i: int, cells: Sequence[Cell], trained: Sequence[str]) -> np.ndarray:
    """What a cell whose chip has no rows takes: its row of the matrix where the centre is shared by all chips (its own offsets rest at
    zero), else the mean over chips with rows that run the same implementation, of its group where there are any."""
    leaf = cells[i].free(name)
    if leaf is None or leaf.effects[0].endswith("@all"):
        return matrix[i]
    peers = [j for j, c in enumerate(cells) if c.kernel == cells[i].kernel and c.chip in trained]
    near = [j for j in peers if cells[j].group == cells[i].group] or peers
    return matrix[near].mean(axis=0) if near else matrix[i]


def centre_row(matrix: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """What a further chip like some cells takes: the numbers that all of them share; what sets one apart rests at zero."""
    return matrix[list(members)].min(axis=0)
