"""What does a family cost at best under one catalogue after another? Designs of the front re-optimised by ``finish``, each time anew.

Under a catalogue that changes nothing of what a family is built with, nor of what its owner pays, it costs what it costs at the stated
values. Else chips are bred from the front's designs and the best of them is polished, and so is the optimum that was found nearby.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from dse.analysis.inputs import Place
from dse.analysis.niches import BLOCK
from dse.analysis.optima import Asked, Start, reoptimised, slopes
from dse.catalog import Catalog
from dse.evaluate import as_floats
from dse.search.designs import build_block, pad
from dse.search.finish import Finished
from dse.search.shards import canonical, points_of

BRED = 64  # chips bred under every catalogue, beside the designs of the front
BRED_AT_FIRST = 256  # the same at the stated values, where every search begins


@dataclass
class Anew:
    """Families that compete in one case, and their optima at the stated values."""

    catalog: Catalog
    asked: Asked
    starts: Mapping[str, Start]
    seed: int
    made: int = field(default=0, init=False)  # families designed anew so far

    def __post_init__(self) -> None:
        self.stated: dict[str, Finished | None] = {}
        self._own: dict[str, tuple[Any, ...]] = {}

    def optimum(self, family: str) -> Finished | None:
        """The best design at the stated values."""
        if family not in self.stated:
            self.stated[family] = reoptimised(self.starts[family], self.catalog, self.asked, BRED_AT_FIRST, self.seed)
            self.made += 1
        return self.stated[family]

    def _given(self, family: str, book: Catalog) -> tuple[Any, ...]:
        """What the costs of a family are computed from, as numbers: the owner's prices, and chips from all over its space."""
        start = self.starts[family]
        shop = start.shop(book)
        cube = np.random.default_rng(self.seed).random((BLOCK, shop.space.dimension))
        _, values, _ = canonical(shop.space, np.concatenate([points_of(shop.space, list(start.designs))[1], cube])[:BLOCK])
        built = build_block(shop, pad(values, BLOCK))
        return tuple(np.asarray(x) for x in jax.tree.leaves((built, as_floats(book.prices[self.asked.scenario]))))

    def touched(self, family: str, book: Catalog) -> bool:
        """Whether a catalogue builds a family's chips, or charges their owner, otherwise than the stated values do."""
        if family not in self._own:
            self._own[family] = self._given(family, self.catalog)
        return not all(np.array_equal(a, b) for a, b in zip(self._own[family], self._given(family, book), strict=True))

    def best(self, family: str, book: Catalog, known: Finished | None = None) -> Finished | None:
        """The best design of a family under a catalogue that touches it; ``known``: the optimum under one nearby."""
        start, first = self.starts[family], self.optimum(family)
        near = known or first
        designs = (*start.designs, *([first.decisions] if first else []))
        self.made += 1
        return reoptimised(replace(start, designs=designs), book, self.asked, BRED, self.seed, near, walk=0)

    def slope(self, family: str, book: Catalog, found: Finished, places: Iterable[Place]) -> float:
        """d ln (optimal cost) / d ln (lever) under a catalogue, by the envelope theorem."""
        return float(slopes(self.starts[family], book, self.asked, found, [tuple(places)])[0][0])
