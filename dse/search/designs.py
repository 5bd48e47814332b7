"""How good is a block of hypothetical chips? Designs are built, every layout is tried in every case, and the best are scored."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.chips import FAMILIES
from dse.chips.common import Built
from dse.search.deck import Memo
from dse.search.grid import Case, Grid, layout_table
from dse.search.layouts import screen
from dse.search.shards import Scores
from dse.space import Space, take
from dse.types import Chip, FamilyConstants, Process, Slacks, Technology


@dataclass(frozen=True)
class Shop:
    """What a family is built with."""

    family: str
    space: Space
    processes: tuple[Process, ...]  # in the order of the node choice
    technology: Technology
    constants: FamilyConstants


@dataclass(frozen=True)
class Questions:
    """All cases of a study, its limits, and the position of the headline case and owner."""

    cases: tuple[Case, ...]
    limits_s: tuple[float, ...]
    headline_case: int
    headline_scenario: int
    mixes: tuple[tuple[tuple[int, float], ...], ...] = ()  # for each model: (case, weight) of the workloads that one design should serve
    objectives: tuple[str, ...] = ("usd_per_million_output_token", "tpot_s")
    variants: tuple[Case, ...] = ()  # the headline case to owners who weigh the third objective more and more, or with tighter limits on it

    @property
    def cells(self) -> int:
        """Costs of every (case, mix or variant, owner, limit), and the fastest token of every case."""
        mixed = sum(len(self.cases[m[0][0]].prices) for m in self.mixes)
        return (sum(len(c.prices) for c in (*self.cases, *self.variants)) + mixed) * len(self.limits_s) + len(self.cases)

    def cells_of(self, case: int) -> slice:
        """Costs of a case for every owner under every limit."""
        limits, owners = len(self.limits_s), [len(c.prices) for c in self.cases]
        return slice(sum(owners[:case]) * limits, sum(owners[: case + 1]) * limits)

    @property
    def headline_cells(self) -> slice:
        """Costs of the headline case, or of the mix that it belongs to, for its owner under every limit."""
        limits, owners = len(self.limits_s), [len(c.prices) for c in self.cases]
        before = sum(owners[: self.headline_case])
        for k, mix in enumerate(self.mixes):
            if self.headline_case in dict(mix):
                before = sum(owners) + sum(len(self.cases[m[0][0]].prices) for m in self.mixes[:k])
        first = (before + self.headline_scenario) * limits
        return slice(first, first + limits)


def build_block(shop: Shop, values: Mapping[str, np.ndarray]) -> Built:
    """Chips of a block of designs; leaves ``(n,)`` or scalars."""
    process = take(shop.processes, values["node"])
    return FAMILIES[shop.family].build(values, process, shop.technology, shop.constants)


def column(tree: Any, n: int) -> Any:
    """The same pytree with leaves ``(n, 1)`` (scalars stay)."""
    return jax.tree.map(lambda x: np.asarray(x, float).reshape(n, 1) if np.size(x) > 1 or np.ndim(x) else np.asarray(x, float), tree)


VARYING = (
    ".computes.fp4", ".memory.", ".sram.", ".weight_store.", ".system_usd", ".nre_model_usd", ".kernels.system.layer_s",
    ".kernels.system.layer_token_s",
)  # fmt: skip


def alike(chips: Chip, n: int) -> Chip:
    """The same chips with a column also for what only some families vary, so that all families share their compiled functions."""

    leaves, tree = jax.tree.flatten(chips)
    return jax.tree.unflatten(tree, [np.broadcast_to(x, (n, 1)) if v else x for x, v in zip(leaves, _varying(tree), strict=True)])


@functools.partial(quickly, static_argnums=(0,))
def _varied(family: str, values: Mapping[str, Any], process: Process, technology: Technology, constants: FamilyConstants) -> list[Any]:
    """Leaves of the chips of a block that differ from chip to chip, as columns."""
    chip = FAMILIES[family].build(values, process, technology, constants).chip
    return [jnp.reshape(x, (-1, 1)) for x in jax.tree.leaves(chip) if jnp.ndim(x)]


class Builder:
    """Chips of one shape of block for the search, ``alike``, in single precision but for the slacks; what they share is built once."""

    def __init__(self, shop: Shop, size: int) -> None:
        self.shop, self.size = shop, size
        self._tree: Any = None
        self._single: list[bool] = []  # leaves in single precision
        self._fixed: list[Any] = []  # None where the chips differ

    def __call__(self, values: Mapping[str, np.ndarray]) -> Chip:
        """The chips of at most so many designs, the last one repeated to fill the block."""
        full = pad(values, self.size)
        if self._tree is None:
            self._look(full)
        shop = self.shop
        found = _varied(shop.family, full, take(shop.processes, full["node"]), shop.technology, shop.constants)
        varied = iter(found)
        return jax.tree.unflatten(self._tree, [self._cast(next(varied), i) if x is None else x for i, x in enumerate(self._fixed)])

    def _look(self, full: Mapping[str, np.ndarray]) -> None:
        """Which leaves differ from chip to chip, and the others: those of any one design."""
        shop = self.shop
        process = take(shop.processes, full["node"])
        whole = jax.eval_shape(lambda v, p: FAMILIES[shop.family].build(v, p, shop.technology, shop.constants).chip, dict(full), process)
        shapes, self._tree = jax.tree.flatten(whole)
        self._single = [not p.startswith(".slack") for p in _paths(self._tree)]
        one: dict[str, Any] = {k: float(v[0]) for k, v in full.items()}
        alone = jax.tree.leaves(build_block(shop, one).chip)
        spread = [np.full((self.size, 1), float(x)) if wide else np.asarray(x) for x, wide in zip(alone, _varying(self._tree), strict=True)]
        self._fixed = [None if x.ndim else self._cast(y, i) for i, (x, y) in enumerate(zip(shapes, spread, strict=True))]

    def _cast(self, x: Any, i: int) -> np.ndarray:
        return np.asarray(x, np.float32 if self._single[i] else np.float64)


def _paths(tree: Any) -> list[str]:
    paths = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(tree, range(tree.num_leaves)))[0]
    return [jax.tree_util.keystr(path) for path, _ in paths]


@functools.lru_cache(maxsize=16)
def _varying(tree: Any) -> tuple[bool, ...]:
    """Which leaves some families vary, by their paths."""
    return tuple(path.startswith(VARYING) for path in _paths(tree))


def pad(values: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Designs repeated to ``n`` rows (the last one fills up)."""
    return {k: np.concatenate([v, np.repeat(v[-1:], n - len(v))]) for k, v in values.items()}


def tables(cases: Sequence[Case], grid: Grid) -> dict[str, np.ndarray]:
    """Layout table of every model that occurs."""
    return {c.model_id: layout_table(c.model, grid) for c in cases}


def score(chips: Chip, n: int, questions: Questions, grid: Grid, known: Mapping[str, np.ndarray], memo: Memo | None = None) -> Scores:
    """Cost of every chip in every cell, over all layouts and formats of the grid (``known``: its tables by model)."""
    costs, fastest, evaluations = [], [], 0
    best = np.full(n, np.inf)
    by_case: list[np.ndarray] = []
    for i, case in enumerate(questions.cases):
        found, count = screen(chips, case, grid, known[case.model_id], questions.limits_s, with_layout=False, memo=memo)
        evaluations += count
        costs.append(found.cost.reshape(-1, n))
        by_case.append(found.cost)
        fastest.append(found.fastest)
        if i == questions.headline_case:
            best = found.cost[questions.headline_scenario].min(axis=0)
    for mix in questions.mixes:
        mixed = np.sum([weight * by_case[i] for i, weight in mix], axis=0)
        costs.append(mixed.reshape(-1, n))
        if questions.headline_case in dict(mix):  # the mix takes the place of the headline's workload
            best = mixed[questions.headline_scenario].min(axis=0)
    varied: list[np.ndarray] = []
    for variant in questions.variants:
        found, count = screen(chips, variant, grid, known[variant.model_id], questions.limits_s, with_layout=False, memo=memo)
        evaluations += count
        costs.append(found.cost.reshape(-1, n))
        varied.append(found.cost.min(axis=1))  # (owners, n)
    limit_slack = {f.name: -np.broadcast_to(np.asarray(getattr(chips.slack, f.name), float).ravel(), (n,)) for f in fields(Slacks)}
    constraints = {**limit_slack, "headline": np.where(np.isfinite(best), 0.0, 1.0)}
    columns = [best, fastest[questions.headline_case], *([_third(questions, best, varied)] if varied else [])]
    values = np.stack(columns[: len(questions.objectives)], axis=1)
    return Scores(np.concatenate([*costs, fastest]).T, values, constraints, evaluations)


def _third(questions: Questions, best: np.ndarray, varied: Sequence[np.ndarray]) -> np.ndarray:
    """The third objective of the headline case: least energy of a token, or the tightest limit on the first token that is met."""
    if questions.objectives[2] == "j_per_output_token":
        return varied[-1][-1] / 1e6  # of the owner to whom a joule costs a dollar, and nothing else counts beside it
    limits = [questions.cases[questions.headline_case].ttft_limit_s, *(v.ttft_limit_s for v in questions.variants)]
    met = [np.isfinite(best), *(np.isfinite(v).any(axis=0) for v in varied)]
    return np.min([np.where(m, limit, np.inf) for m, limit in zip(met, limits, strict=True)], axis=0)


def block_scorer(shop: Shop, questions: Questions, grid: Grid, size: int):
    """Scorer of design values for ``run_shard``: builds the block, padded to one shape, and scores it on the thinned grid."""

    thin = grid.thinned()
    known, memo, build = tables(questions.cases, thin), Memo(), Builder(shop, size)

    def evaluate_block(values: dict[str, np.ndarray]) -> Scores:
        n = len(next(iter(values.values())))
        scores = score(build(values), size, questions, thin, known, memo)
        return replace(
            scores, costs=scores.costs[:n], values=scores.values[:n], constraints={k: v[:n] for k, v in scores.constraints.items()}
        )

    return evaluate_block
