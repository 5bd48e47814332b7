"""Does the screening find what trying every layout one by one finds, within its memory, and say why when nothing fits?"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import dse
from dse.equations import layout as cut
from dse.errors import InfeasibleError, InputError
from dse.evaluate import as_floats
from dse.search import layouts as L
from dse.search.deck import WIDTHS
from dse.search.grid import Case, Grid, is_mixture, layout_table
from dse.search.kernel import SLICE
from dse.types import Deployment, Layout, Workload

CHIPS = ("nvidia-h100-sxm", "amd-mi300x", "groq-lpu-v1", "nvidia-b200-sxm")
FORMATS = ("bf16", "fp8")
DENSE = Grid(tp=(1, 4, 8), pp=(1, 2), batches=(1, 16, 200), formats=FORMATS, max_chips=16)
MIXTURE = Grid(tp=(1, 8), dp=(1, 4), pp=(1, 3), batches=(2, 64), formats=FORMATS, max_chips=64)
LIMITS = (0.1, 0.02, 0.006, 1e-6)
OWNERS = ("owner-2026", "street-2026")
SINGLE = 1e-3  # the screening in single precision against the model in double precision


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def block(cat):
    return dse.stack([cat.chips[c] for c in CHIPS], axis=0)


def case_of(cat, model, isl=1024, osl=512, ttft=1.0):
    prices = tuple(as_floats(cat.prices[p]) for p in OWNERS)
    workload = as_floats(Workload(input_tokens=isl, output_tokens=osl))
    return Case(model, "", as_floats(cat.models[model]), workload, ttft, prices)


def one_by_one(cat, case, grid, chip, prices, allowed=FORMATS):
    """Cost, time per token and row of every layout that keeps the limits but that on the time per token: plain scalar evaluations."""
    found = []
    for row, (f, fmt) in product(layout_table(case.model, grid), enumerate(grid.formats)):
        if fmt not in allowed:
            continue
        tp, pp, dp, ep, batch = (float(x) for x in row)
        layout = Layout(tp=tp, pp=pp, dp=dp, ep=ep, batch=batch, format=fmt)
        m = dse.evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=prices))
        if bool(m.feasible) and float(m.ttft_s) <= case.ttft_limit_s:
            found.append((float(m.usd_per_million_output_token), float(m.tpot_s), (*row, f)))
    return found


@pytest.fixture(scope="module", params=[("llama-3-8b", DENSE), ("gpt-oss-120b", MIXTURE)], ids=["dense", "mixture"])
def screened(request, cat, block):
    """A case with its grid, its table, and what the screening says."""
    model, grid = request.param
    case = case_of(cat, model)
    table = layout_table(case.model, grid)
    return case, grid, table, L.screen(block, case, grid, table, LIMITS)


# --- the screening against brute force -----------------------------------------------------------------------------------


def test_the_screened_best_is_that_of_trying_all_one_by_one(cat, screened):
    case, grid, table, (best, count) = screened
    assert 0 < count <= len(CHIPS) * len(FORMATS) * len(table)
    for (c, chip), (s, prices) in product(enumerate(CHIPS), enumerate(case.prices)):
        tried = one_by_one(cat, case, grid, cat.chips[chip], prices)
        for k, limit in enumerate(LIMITS):
            costs = {row: cost for cost, tpot, row in tried if tpot <= limit}
            if not costs:
                assert best.cost[s, k, c] == np.inf, (chip, limit)
                assert best.layout[s, k, c] == best.format[s, k, c] == -1
                continue
            least = min(costs.values())
            assert best.cost[s, k, c] == pytest.approx(least, rel=SINGLE), (chip, limit)
            picked = (*table[best.layout[s, k, c]], best.format[s, k, c])
            assert costs[picked] == pytest.approx(least, rel=SINGLE), (chip, limit)
    assert (best.layout[:, -1] == -1).all()  # nobody writes a token in a microsecond
    assert np.isfinite(best.cost[:, 0]).any()


def test_tighter_limits_are_never_cheaper_and_the_layout_may_be_left_out(screened, block):
    case, grid, table, (best, count) = screened
    assert (np.diff(np.where(np.isfinite(best.cost), best.cost, 1e30), axis=1) >= 0).all()
    quick, same = L.screen(block, case, grid, table, LIMITS, with_layout=False)
    assert same == count
    np.testing.assert_array_equal(quick.cost, best.cost)
    assert (quick.layout == -1).all()


def test_a_chip_takes_only_the_formats_that_are_permitted_to_it(screened, block):
    case, grid, table, (best, _) = screened
    permitted = np.ones((len(CHIPS), len(FORMATS)))
    permitted[0, FORMATS.index("fp8")] = 0
    permitted[1] = 0
    masked, _ = L.screen(block, case, grid, table, LIMITS, permitted=permitted)
    assert np.isfinite(best.cost[:, 0, 1]).all()
    assert (masked.cost[..., 1] == np.inf).all()
    assert (best.format[:, 0, 0] == FORMATS.index("fp8")).all()  # so that the mask takes something away
    assert not (masked.format[..., 0] == FORMATS.index("fp8")).any()
    assert (masked.cost[:, 0, 0] > best.cost[:, 0, 0]).all()
    np.testing.assert_array_equal(masked.cost[..., 2:], best.cost[..., 2:])
    nobody, count = L.screen(block, case, grid, table, LIMITS, permitted=np.zeros_like(permitted))
    assert count == 0
    assert (nobody.cost == np.inf).all()


def test_every_call_is_one_slice_whatever_the_length_of_the_table(cat, block, monkeypatch):
    case = case_of(cat, "llama-3-8b")
    grid = replace(DENSE, batches=tuple(range(1, 230)), max_chips=1e6)
    table = layout_table(case.model, grid)
    assert len(table) > SLICE
    sizes, inner = [], L.reduced

    def spy(tpot, costs, limits):
        sizes.append({x.shape for x in (tpot, *costs)})
        return inner(tpot, costs, limits)

    monkeypatch.setattr(L, "reduced", spy)
    whole, count = L.screen(block, case, grid, table, LIMITS)
    assert len(sizes) >= 2 * 2
    ((shape,),) = {frozenset(shapes) for shapes in sizes}
    assert shape[0] == len(CHIPS) and shape[1] <= max(WIDTHS)
    assert count <= len(CHIPS) * len(FORMATS) * len(table)
    order = np.random.default_rng(1).permutation(len(table))
    mixed, same = L.screen(block, case, grid, table[order], LIMITS)
    assert same == count
    np.testing.assert_array_equal(mixed.cost, whole.cost)  # neither the order nor the cuts between slices matter
    coarse = layout_table(case.model, DENSE)
    rows = {tuple(r) for r in table}
    assert all(tuple(r) in rows for r in coarse)
    part, _ = L.screen(block, case, DENSE, coarse, LIMITS)
    assert (whole.cost <= part.cost * (1 + 1e-6)).all()


# --- the table -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama-3-70b", "deepseek-r1"])
def test_the_table_holds_layouts_that_can_exist(cat, model):
    llm, grid = cat.models[model], replace(Grid(), max_chips=300)
    table = layout_table(llm, grid)
    tp, pp, dp, ep, batch = table.T
    depth = float(cut.layers(llm))
    assert len({tuple(r) for r in table}) == len(table)
    assert (tp * pp * dp).max() <= 300
    assert pp.max() <= depth
    assert {float(np.ceil(depth / k)) for k in (1, 2, 3)} <= set(pp)
    assert (batch >= dp).all()
    assert set(batch) <= set(grid.batches)
    if is_mixture(llm):
        assert ((ep == 1) | (ep == tp * dp)).all()
        assert (ep > 1).any()
        assert ep.max() <= 256
    else:
        assert (dp == 1).all()
        assert (ep == 1).all()
    thin = {tuple(r) for r in layout_table(llm, grid.thinned())}
    assert thin < {tuple(r) for r in table}


# --- one chip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "chip"), [(None, "nvidia-h100-sxm"), (0.012, "nvidia-h100-sxm"), (0.02, "amd-mi300x")])
def test_the_best_layout_of_a_chip_is_that_of_trying_all(cat, limit, chip):
    model, workload, prices = cat.models["llama-3-8b"], Workload(input_tokens=1024, output_tokens=512), cat.prices["owner-2026"]
    layout, m = dse_best(cat, chip, limit)
    tried = one_by_one(cat, case_of(cat, "llama-3-8b", ttft=0.5), DENSE, cat.chips[chip], prices)
    least = min(cost for cost, tpot, _ in tried if limit is None or tpot <= limit)
    assert float(m.usd_per_million_output_token) == pytest.approx(least, rel=SINGLE)
    assert bool(m.feasible)
    assert float(m.ttft_s) <= 0.5
    assert limit is None or float(m.tpot_s) <= limit
    again = dse.evaluate(Deployment(chip=cat.chips[chip], model=model, workload=workload, layout=layout, prices=prices))
    assert float(again.usd_per_million_output_token) == float(m.usd_per_million_output_token)


def dse_best(cat, chip, max_tpot=None, max_ttft=0.5, model="llama-3-8b", **more):
    workload = Workload(input_tokens=1024, output_tokens=512)
    return L.best_layouts(
        cat.chips[chip], cat.models[model], workload, cat.prices["owner-2026"], max_tpot, max_ttft, **{"grid": DENSE} | more
    )


def test_a_smaller_instance_is_kept_to(cat):
    _, m = dse_best(cat, "nvidia-h100-sxm", max_chips=2)
    assert float(m.chips) <= 2
    with pytest.raises(InputError, match="max_chips"):
        dse_best(cat, "nvidia-h100-sxm", max_chips=0.5)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_tpot": 1e-4}, r"tpot 0\.1 ms excludes every layout: the fastest reaches \d+(\.\d+)? ms"),
        ({"max_ttft": 1e-4}, r"ttft 0\.0001 s excludes every layout: the fastest reaches 0\.\d+ s"),
        (
            {"model": "llama-3.1-405b", "max_chips": 2},
            r"memory excludes every layout: the roomiest within 2 chips lacks \d+\.\d% of a chip",
        ),
    ],
    ids=["tpot", "ttft", "memory"],
)
def test_what_cannot_be_done_names_the_limit_and_by_how_much(cat, limits, says):
    with pytest.raises(InfeasibleError, match=says):
        dse_best(cat, "nvidia-h100-sxm", **limits)


def test_the_miss_that_is_named_is_the_least_one(cat):
    tried = one_by_one(cat, case_of(cat, "llama-3-8b", ttft=0.5), DENSE, cat.chips["nvidia-h100-sxm"], cat.prices["owner-2026"])
    fastest = min(tpot for _, tpot, _ in tried)
    with pytest.raises(InfeasibleError, match=f"reaches {fastest * 1e3:.3g} ms"):
        dse_best(cat, "nvidia-h100-sxm", fastest * 0.9)
    _, m = dse_best(cat, "nvidia-h100-sxm", fastest * 1.001)
    assert float(m.tpot_s) == pytest.approx(fastest, rel=1e-3)


def test_a_chip_beyond_a_physical_limit_says_so(cat):
    chip = cat.chips["nvidia-h100-sxm"]
    hot = replace(chip, slack=replace(chip.slack, heat=-0.25))
    with pytest.raises(InfeasibleError, match="limit of the chip itself"):
        L.best_layouts(hot, cat.models["llama-3-8b"], Workload(input_tokens=1024, output_tokens=512), cat.prices["owner-2026"], grid=DENSE)


def test_formats_follow_the_arithmetic_of_the_chip(cat):
    names = ("bf16", "fp8", "nvfp4", "int8", "int4")
    a100, b200 = (L.native_formats(cat.chips[c], names) for c in ("nvidia-a100-80gb-sxm", "nvidia-b200-sxm"))
    assert "fp8" not in a100
    assert "nvfp4" in b200
    assert {"bf16", "int8"} <= set(a100)
    assert set(L.usual_formats(cat.chips["nvidia-h100-sxm"])) <= set(names)
