"""Does screening in single precision lose a design that double precision would put on the front, or keep one that breaks a limit?

Random chips of a family, and chips bred to stand at their limits, meet every layout of a grid in both precisions.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.evaluate import evaluate
from dse.questions import grid_of, questions_of, shards_of, shop_of
from dse.search.designs import alike, build_block, column
from dse.search.grid import is_mixture, layout_table, to_layout
from dse.search.layouts import screen
from dse.search.refine import Question, refine
from dse.study import read_study
from dse.types import Deployment, named_format

STUDY = "gpu_vs_sram_vs_asic"
FAMILIES = ("hbm_gpu", "transformer_asic", "sram", "compute_in_memory", "burned_in", "stacked_dram")
CHIPS, LOST = 64, 1e-3


def _exact(chips, case, table, formats):
    """Cost of every chip in every layout and format, infinite where a limit is broken, and its time per token: (formats, chips, rows)."""
    costs, times = [], []
    for name in formats:
        layout = to_layout(table, None, is_mixture(case.model), axis=1)
        hot = jax.tree.map(lambda x: np.asarray(x, float), named_format(name))
        d = Deployment(chip=chips, model=case.model, workload=case.workload, layout=replace(layout, format=hot), prices=case.prices[0])
        m = evaluate(d)
        met = np.asarray(m.feasible) & (np.asarray(m.ttft_s) <= case.ttft_limit_s)
        costs.append(np.where(met, np.asarray(m.usd_per_million_output_token), np.inf))
        times.append(np.broadcast_to(np.asarray(m.tpot_s), costs[-1].shape))
    return np.array(costs), np.array(times)


def _lost(family: str) -> tuple[np.ndarray, int]:
    """How much dearer, for each limit, the design is that single precision puts on the front; how many of its picks break a limit."""
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    questions = questions_of(study, catalog)
    case = questions.cases[questions.headline_case]
    case = replace(case, prices=(case.prices[questions.headline_scenario],))
    shop = shop_of(family, study.families[family], catalog)
    shard = next(s for s in shards_of(study, catalog) if s.family == family and not s.below_4_bit)
    grid = replace(grid_of(study, shard.formats), tp=(1, 4, 16), pp=(1, 8, 40), batches=(8, 33, 140, 558, 790))
    rng = np.random.default_rng(0)
    bred = refine(shop, Question(((case, 1.0),), questions.limits_s), grid, np.empty((0, shop.space.dimension)), 30, rng).points
    cube = np.concatenate([bred, rng.random((CHIPS, shop.space.dimension))])[:CHIPS]
    chips = alike(column(build_block(shop, shop.space.decode(cube)).chip, CHIPS), CHIPS)
    table, limits = layout_table(case.model, grid), np.array(questions.limits_s)
    best, _ = screen(chips, case, grid, table, limits)
    costs, times = _exact(chips, case, table, grid.formats)
    dearer, broken = [], 0
    for t, limit in enumerate(limits):
        within = np.where(times <= limit * (1 + 1e-9), costs, np.inf)
        picked = [within[best.format[0, t, c], c, best.layout[0, t, c]] if best.layout[0, t, c] >= 0 else np.inf for c in range(CHIPS)]
        broken += sum(np.isinf(x) and np.isfinite(y) for x, y in zip(picked, best.cost[0, t], strict=True))
        if np.isfinite(within).any():
            dearer.append(picked[int(np.argmin(best.cost[0, t]))] / within.min() - 1)
    return np.array(dearer), broken


@pytest.mark.parametrize("family", ["hbm_gpu", *(pytest.param(f, marks=pytest.mark.long) for f in FAMILIES[1:])])
def test_single_precision_loses_no_design_of_the_front(family):
    dearer, broken = _lost(family)
    print(f"{family}: front of single precision dearer by at most {dearer.max():.1e} at {len(dearer)} limits, {broken} picks break a limit")
    assert len(dearer) > 2
    assert dearer.max() <= LOST
    assert dearer.min() >= -1e-12
    assert broken == 0
