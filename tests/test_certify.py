"""Bounds of the search: no design is cheaper than the bound of a box that holds it, boxes cover the domain, certificates are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import certificates
from dse.catalog import load_catalog
from dse.errors import InputError
from dse.search.bounds import Problem, bounder
from dse.search.boxes import halves, kinds_of, leaves, roots_of
from dse.search.certify import check, exact, prove, roots_least, with_batch
from dse.search.grid import layout_table
from dse.study import parse_study, read_study

STUDY, LIMIT_S = "gpu_vs_sram_vs_asic", 0.02
FAMILIES = ("hbm_gpu", "transformer_asic", "sram", "compute_in_memory", "burned_in", "stacked_dram")
PAIRS, CHUNK = 20_000, 8192


def _problem(family: str) -> Problem:
    catalog = load_catalog()
    return certificates.problem_of(read_study(STUDY, catalog), catalog, family, LIMIT_S)


def _small(problem: Problem) -> Problem:
    """Two layouts, two batches, one node, one format: few roots."""
    grid = replace(problem.grid, tp=(1, 2), pp=(1,), batches=(64, 128))
    space = problem.shop.space
    fixed = {v.name: replace(v, allowed=v.names[:1]) for v in space.variables if v.kind == "choice"}
    variables = tuple(fixed.get(v.name, v) for v in space.variables)
    return replace(problem, grid=grid, shop=replace(problem.shop, space=replace(space, variables=variables)))


def _violations(problem: Problem, pairs: int) -> tuple[int, int]:
    """Feasible points that are cheaper than the bound of a random box around them, and how many points are feasible at all."""
    bound, table, rng = bounder(problem), layout_table(problem.case.model, problem.grid), np.random.default_rng(0)
    space, wrong, feasible = problem.shop.space, 0, 0
    choices = np.array([v.kind == "choice" for v in space.variables])
    for _ in range(-(-pairs // CHUNK)):
        u = rng.random((CHUNK, space.dimension))
        v = np.clip(u + 2 * (rng.random(u.shape) - 1 / 2) * rng.random((CHUNK, 1)) ** 3, 0, 1)
        v = np.where(choices, u, v)
        inside = np.minimum(u, v) + np.abs(v - u) * rng.random(u.shape)
        low, high, points = (np.stack([space.decode(x)[n] for n in space.names], 1) for x in (np.minimum(u, v), np.maximum(u, v), inside))
        rows, formats = table[rng.integers(len(table), size=CHUNK)], rng.integers(len(problem.grid.formats), size=CHUNK)
        cost = exact(problem, points, rows, formats)
        batch = np.searchsorted(problem.grid.batches, rows[:, 4])
        reach = np.floor(12 * rng.random(CHUNK) ** 2)
        least, most = np.maximum(batch - reach, roots_least(problem, rows.T)), np.minimum(batch + reach, len(problem.grid.batches) - 1)
        low, high = np.c_[low, least], np.c_[high, most]
        wrong += int((bound(low, high, rows, formats) > cost).sum())
        feasible += int(np.isfinite(cost).sum())
    return wrong, feasible


def test_no_design_is_cheaper_than_the_bound_of_its_box():
    wrong, feasible = _violations(_problem("stacked_dram"), PAIRS)
    assert wrong == 0
    assert feasible > PAIRS // 20


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_no_design_of_any_family_is_cheaper_than_the_bound_of_its_box(family):
    wrong, feasible = _violations(_problem(family), 200_000)
    assert wrong == 0
    assert feasible > 0


def test_halves_meet_and_whole_numbers_lie_in_one_of_them():
    kinds = np.array([0, 1, 2])
    low, high = np.array([[0.0, 1.0, 1.0]] * 3), np.array([[2.0, 4.0, 4.0]] * 3)
    a, b, c, d = halves(low, high, np.arange(3), kinds)
    np.testing.assert_allclose(np.diagonal(b), [1.0, 2.0, 2.0])
    np.testing.assert_allclose(np.diagonal(c), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(a, low)
    np.testing.assert_array_equal(d, high)


@pytest.mark.parametrize("text", ["a", "a.", "...", "ab.."])
def test_a_tree_that_does_not_cover_its_root_is_refused(text):
    with pytest.raises(ValueError, match="leaf"):
        list(leaves(text, np.zeros(2), np.ones(2), np.zeros(2, int)))


def test_roots_are_every_choice_with_every_layout_and_format():
    problem = _problem("sram")
    roots = roots_of(problem)
    named = np.prod([len(v.names) for v in problem.shop.space.variables if v.kind == "choice"])
    table = layout_table(problem.case.model, problem.grid)
    assert len(roots.low) == named * len(np.unique(table[:, :4], axis=0)) * len(problem.grid.formats)
    assert len(np.unique(np.concatenate([roots.low, roots.rows, roots.formats[:, None]], 1), axis=0)) == len(roots.low)
    batches = np.asarray(problem.grid.batches)
    assert (batches[roots.low[:, -1].astype(int)] == 1).all()
    assert (batches[roots.high[:, -1].astype(int)] == table[:, 4].max()).all()


def test_branch_and_bound_agrees_with_dense_sampling_and_its_proof_can_be_checked():
    problem = _small(_problem("stacked_dram"))
    proof = prove(problem, seconds=30.0, target=0.01, boxes=300_000)
    assert 0.0 <= proof.gap < 0.02
    rng, space = np.random.default_rng(1), problem.shop.space
    values = space.decode(rng.random((CHUNK, space.dimension)))
    points = np.stack([values[n] for n in space.names], 1)
    roots = roots_of(problem)
    pick = rng.integers(len(roots.low), size=CHUNK)
    costs = exact(problem, points, with_batch(problem, roots.low[pick], roots.rows[pick]), roots.formats[pick])
    assert np.isfinite(costs).any()
    assert costs.min() >= proof.bound
    assert costs.min() >= proof.optimum.cost * 0.999
    least, count = check(problem, proof.bound, proof.trees)
    assert least >= proof.bound * (1 - 1e-12)
    assert count > len(roots.low)
    least, _ = check(problem, proof.bound * 1.5, proof.trees)
    assert least < proof.bound * 1.5  # the same trees prove no higher bound
    assert len(kinds_of(problem)) == space.dimension + 1


def test_an_unknown_family_is_named():
    catalog = load_catalog()
    with pytest.raises(InputError, match="abacus"):
        certificates.problem_of(read_study(STUDY, catalog), catalog, "abacus", LIMIT_S)


TABLE = [
    {"family": "sram", "tpot_limit_s": 0.02, "lower_bound": 0.9, "optimality_gap": 0.1},
    {"family": "hbm_gpu", "tpot_limit_s": 0.05, "lower_bound": 0.5, "optimality_gap": 0.01},
]


def test_bounds_are_variables_over_families_and_limits():
    found = certificates.by_family(TABLE, [0.05, 0.02])
    assert float(found["lower_bound"].sel(certified_family="sram", tpot_limit=0.02)) == 0.9
    assert np.isnan(float(found["lower_bound"].sel(certified_family="sram", tpot_limit=0.05)))
    assert float(found["optimality_gap"].sel(certified_family="hbm_gpu", tpot_limit=0.05)) == 0.01
    assert {"units", "long_name", "better"} <= set(found["lower_bound"].attrs)


def test_a_claim_without_trees_is_proved_anew_and_a_wrong_one_is_found_out():
    problem = _small(_problem("stacked_dram"))
    proof = prove(problem, seconds=30.0, target=0.05, boxes=100_000)
    least, boxes = check(problem, proof.bound, "", boxes=200_000)
    assert least >= proof.bound * (1 - 1e-12)
    assert boxes < 200_000
    least, _ = check(problem, proof.optimum.cost * 1.01, "", boxes=200_000)
    assert least < proof.optimum.cost * 1.01


def test_the_table_of_gaps_says_what_a_proof_left_open_at_every_moment():
    path = sorted((Path(__file__).parent.parent / "reports" / "certificates").glob("*-sram-20ms.json"))[0]
    c = replace(certificates.read(path), optimum=1.0, bound=0.99, gap=0.01, seconds=5.0, history=[[0.5, 2.0, 0.0], [2.0, 1.0, 0.9]])
    assert certificates.gap_at(c, 0.1) == 1.0
    assert certificates.gap_at(c, 1.0) == 1.0
    assert certificates.gap_at(c, 3.0) == pytest.approx(0.1)
    assert certificates.gap_at(c, 10.0) == 0.01  # it had proved enough
    assert certificates.gap_at(replace(c, gap=0.2), 10.0) is None  # it was given less time
    text = certificates.gap_table([c])
    assert "| sram | 20 ms |" in text
    assert "| 100.0% | 10.0% |" in text
    assert all(r in text for r in c.relaxations)


def test_a_proof_begins_with_designs_that_meet_its_limits():
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    problem = certificates.problem_of(study, catalog, "stacked_dram", LIMIT_S)
    starts = certificates.bred_starts(problem, study, (0.03, LIMIT_S), rounds=10)
    costs = [certificates._incumbent(problem, *start).cost for start in starts]
    known = certificates.read(Path(__file__).parent.parent / "reports" / "certificates" / f"{STUDY}-stacked_dram-20ms.json")
    assert np.isfinite(costs).any()
    assert known.bound <= min(costs) <= 1.5 * known.optimum


def _asked(changes: dict[str, str]) -> str:
    """Digest of the question about SRAM under 20 ms in the shipped study, its text changed."""
    study = read_study(STUDY)
    text = study.text
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse_study(text, study.path).question_sha256("sram", LIMIT_S)


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("finish_others = 25", "finish_others = 3  # less", True),
        ("budget = 6000", "budget = 10", True),
        ('title = "GPU,', 'title = "A GPU,', True),
        ("[families.hbm_gpu]", "[families.hbm_gpu]\ndies = 1", True),  # another family
        ('"2 ms", "1 ms"]', '"2 ms"]', True),  # another limit
        ("max_chips = 4096", "max_chips = 2048", False),
        ("# ttft = { chat", "ttft = { chat", False),
        ("[families.sram]", "[families.sram]\ndies = 1", False),
        ('workload = "chat"', 'workload = "long-context"', False),
        ('scenario = "owner-2026"', 'scenario = "street-2026"', False),
        ("tp = [1, 2,", "tp = [2,", False),
    ],
)
def test_a_certificate_is_of_its_question_not_of_the_words_and_the_effort_of_a_study(old, new, same):
    assert (_asked({old: new}) == _asked({})) is same
    assert read_study(STUDY).question_sha256("sram", LIMIT_S) != read_study(STUDY).question_sha256("sram", 0.03)


def test_certificates_of_another_question_or_of_before_are_refused_and_it_is_said_why(tmp_path):
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    path = Path(__file__).parent.parent / "reports" / "certificates" / f"{STUDY}-sram-20ms.json"
    known = replace(certificates.read(path), catalog_sha256=catalog.sha256, question_sha256=study.question_sha256("sram", LIMIT_S))
    kept = certificates.write(known, tmp_path / "a.json")
    assert certificates.still_good(kept, study, catalog) == known
    smaller = replace(study, limits=replace(study.limits, max_chips=64))
    other = replace(study, headline=replace(study.headline, workload="long-context"))
    assert certificates.still_good(kept, smaller, catalog) is None
    assert "a limit, the layouts" in certificates.verify(known, smaller, catalog)[0]
    assert "workload was chat, is long-context" in certificates.verify(known, other, catalog)[0]
    assert "catalog_sha256" in certificates.verify(replace(known, catalog_sha256="0"), study, catalog)[0]
    kept.write_text(kept.read_text().replace("question_sha256", "study_sha256"))
    assert certificates.still_good(kept, study, catalog) is None
    with pytest.raises(InputError, match=r"whole study file.*dse certify"):
        certificates.read(kept)
