"""Which layout does each chip of the result take in each case? The winners' layouts, refined in batch and evaluated exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from dse.evaluate import Metrics, evaluate
from dse.search.deck import Memo
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.layouts import Best, screen
from dse.types import Chip, Deployment, Prices, named_format

BLOCK = 32  # chips screened together: the shape of a usual round of the search, so that nothing is compiled anew
CHUNK = 512  # deployments in one exact evaluation
FINE_STEP = 2 ** (1 / 8)  # ratio of neighbouring batches when the winners' batches are refined
FINE_REACH = 4  # steps to each side
ROUNDING = 1e-9  # relative slack of a limit that is met exactly


@dataclass(frozen=True)
class Finalist:
    """A chip of the result, and the weight formats that it may use."""

    chip: Chip
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """Chips in their best layouts for one case: arrays (k,), metrics with leaves (k,)."""

    who: np.ndarray  # position among the finalists
    scenario: np.ndarray
    limit: np.ndarray
    metrics: Metrics
    format_weights: np.ndarray
    format_kv: np.ndarray
    valid: np.ndarray  # all limits are met by the exact evaluation too


def fine_batches(grid: Grid) -> tuple[int, ...]:
    """Every batch that the refinement of a winner's batch can reach from a (thinned) grid."""
    steps = FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)
    return tuple(sorted({max(round(b * s), 1) for b in grid.batches for s in steps.tolist()}))


def nearest(at: Sequence[float], known: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """A combination of values of sorted lists and all within one step of each, the fewest steps first.

    >>> nearest((2, 1), [[1, 2, 4], [1, 3]])
    [(2, 1), (1, 1), (2, 3), (4, 1), (1, 3), (4, 3)]
    """
    beside = [values[max(values.index(x) - 1, 0) : values.index(x) + 2] for x, values in zip(at, known, strict=True)]
    return sorted(itertools.product(*beside), key=lambda found: sum(a != b for a, b in zip(found, at, strict=True)))


def _refined(best: Best, table: np.ndarray, every: Sequence[int] = ()) -> np.ndarray:
    """Layouts of the winners with neighbouring batches, as a table of its own.

    With ``every``: those of its batches that lie within an octave, on the next narrower and wider cuts too, because a batch between those
    of the table may make another cut the best.
    """
    rows = table[np.unique(best.layout[best.layout >= 0])]
    if every:
        ways, steps = {tuple(x) for x in table[:, :4].tolist()}, [sorted(set(x.tolist())) for x in table[:, :3].T]
        near = set()
        for tp, pp, dp, ep, batch in rows.tolist():
            apart = ((way, sum(a != b for a, b in zip(way, (tp, pp, dp), strict=True))) for way in nearest((tp, pp, dp), steps))
            beside = [(*way, way[0] * way[2] if ep > 1 else ep) for way, count in apart if count <= 1]
            some = [float(x) for x in every if batch <= 2 * x and x <= 2 * batch]
            near |= {(*way, x) for way in beside if way in ways for x in some if x >= way[2]}
        return np.array(sorted(near)).reshape(-1, 5)
    grown = rows[:, None, :].repeat(2 * FINE_REACH + 1, axis=1)
    grown[..., 4] = np.maximum(np.round(grown[..., 4] * FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)), grown[..., 2])
    return np.unique(grown.reshape(-1, 5), axis=0)


def exact(case: Case, chips: Chip, who: np.ndarray, rows: np.ndarray, chosen: np.ndarray, formats: Sequence[str], prices) -> Metrics:
    """Metrics of picked (chip, layout, format) triples, in chunks of one shape."""
    hot = jax.tree.map(lambda *xs: np.array(xs, float), *[named_format(f) for f in formats])
    found = []
    for start in range(0, len(who), CHUNK):
        at = np.minimum(np.arange(start, start + CHUNK), len(who) - 1)
        layout = replace(to_layout(rows[at], None, is_mixture(case.model)), format=jax.tree.map(lambda x: x[chosen[at]], hot))  # noqa: B023
        chip = jax.tree.map(lambda x: x[who[at]], chips)  # noqa: B023
        m = evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=prices))
        found.append(jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (CHUNK,)), m))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[: len(who)], *found)


def together(finalists: Sequence[Finalist]) -> Chip:
    """All chips as one pytree with leaves (n,)."""
    return jax.tree.map(lambda *xs: np.array([float(x) for x in xs]), *[x.chip for x in finalists])


def best_of(case: Case, finalists: Sequence[Finalist], chips: Chip, grid: Grid, table: np.ndarray, limits: Sequence[float]) -> Best:
    """Best layouts of all finalists, block by block."""
    parts, memo = [], Memo(fit=False)
    allowed = np.array([[float(f in x.formats) for f in grid.formats] for x in finalists])
    for start in range(0, len(finalists), BLOCK):
        at = np.minimum(np.arange(start, start + BLOCK), len(finalists) - 1)
        block = jax.tree.map(lambda x: x[at][:, None], chips)  # noqa: B023
        parts.append(screen(block, case, grid, table, limits, permitted=allowed[at], memo=memo)[0])
    joined = {
        name: np.concatenate([getattr(p, name) for p in parts], axis=2)[..., : len(finalists)] for name in ("cost", "layout", "format")
    }
    return Best(**joined, fastest=np.concatenate([p.fastest for p in parts])[: len(finalists)])


def place(
    case: Case, finalists: Sequence[Finalist], grid: Grid, limits: Sequence[float], octave: bool = False, owner: Prices | None = None
) -> Iterator[Placed]:
    """Finalists in their best layouts under every limit; one ``Placed`` for each owner that has any.

    Args:
        case: The question. finalists: Chips with their formats. grid: Layouts to try (its formats are replaced by the finalists').
        limits: Limits on the mean time per output token [s]. octave: Refine batches over an octave to each side instead of half of one:
            for chips whose memory was made to hold just one batch. owner: Whose money the metrics are in (None: of the owner for whom
            the layout was chosen).
    """
    formats = tuple(dict.fromkeys(f for x in finalists for f in x.formats))
    grid = replace(grid, formats=formats).thinned()  # batches between are tried in the refinement
    table = layout_table(case.model, grid)
    chips = together(finalists)
    coarse = best_of(case, finalists, chips, grid, table, limits)
    if not (coarse.layout >= 0).any():
        return
    fine = _refined(coarse, table, fine_batches(grid) if octave else ())
    best = best_of(case, finalists, chips, grid, fine, limits)
    for s, prices in enumerate(case.prices):
        limit, who = np.nonzero(best.layout[s] >= 0)
        if not len(who):
            continue
        chosen = best.format[s, limit, who]
        m = exact(case, chips, who, fine[best.layout[s, limit, who]], chosen, formats, prices if owner is None else owner)
        slow = np.asarray(m.tpot_s) > np.asarray(limits)[limit] * (1 + ROUNDING)
        late = np.asarray(m.ttft_s) > case.ttft_limit_s * (1 + ROUNDING)
        cache = np.array([named_format(f).kv_byte for f in formats])[chosen]
        yield Placed(
            who=who,
            scenario=np.full_like(who, s),
            limit=limit,
            metrics=m,
            format_weights=np.array(formats, object)[chosen],
            format_kv=np.where(cache < 2, "fp8", "bf16").astype(object),
            valid=np.asarray(m.feasible) & ~slow & ~late,
        )
