"""Is a study of three objectives a front of three: points that no other beats, money of one owner, less of the third for more cost?"""

from __future__ import annotations

import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.questions import ENERGY_WEIGHTS, questions_of
from dse.report import tradeoff as R
from dse.run import run_study
from dse.study import read_study
from tests.test_proofs import STUDY


def _study(folder, third):
    text = STUDY.replace("certify = 1000\ngap = 0.05\n", "").replace("budget = 128", "budget = 64")
    text = text.replace("seed = 7", f'seed = 7\nobjectives = ["usd_per_million_output_token", "tpot_s", "{third}"]')
    (folder / f"{third}.toml").write_text(text, encoding="utf-8")
    return folder / f"{third}.toml"


@pytest.fixture(scope="module", params=["j_per_output_token", "ttft_s"])
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return request.param, run_study(_study(folder, request.param))


def test_no_point_is_beaten_in_all_three_and_each_keeps_its_promise(found):
    third, ds = found
    points = np.stack([ds[f"tradeoff_{n}"].values for n in ("usd_per_million_output_token", "tpot_s", third)], axis=1)
    assert len(points) > 3
    assert np.isfinite(points).all()
    family = ds["tradeoff_family"].values
    for name in set(family):
        own = points[family == name]
        beaten = [((own <= p * (1 + 1e-9)).all(axis=1) & (own < p * (1 - 1e-6)).any(axis=1)).any() for p in own]
        assert not any(beaten)
    assert points[:, 1].max() <= ds["tpot_limit"].values.max() * (1 + 1e-9)
    assert set(ds["tradeoff_design"].values) <= set(ds["design"].values)
    assert ds["tradeoff_overall"].values.max() == 1


def test_the_cheapest_point_is_the_headline_owners_cheapest_design(found):
    """Money is the same owner's everywhere, also where a layout was chosen for another one's sake."""
    _, ds = found
    cost = ds["usd_per_million_output_token"].isel(model=0, workload=0, scenario=0)
    for limit in ds["tpot_limit"].values:
        at = ds["tradeoff_tpot_s"].values <= limit * (1 + 1e-9)
        least = float(ds["tradeoff_usd_per_million_output_token"].values[at].min())
        assert least == pytest.approx(float(cost.sel(tpot_limit=limit).min()), rel=1e-6)


def test_a_cut_gives_less_of_the_third_for_more_cost(found):
    third, ds = found
    record = R.info(ds)
    assert record.third == third
    for limit, cuts in record.panels:
        for c in cuts:
            assert list(c.third) == sorted(c.third)
            assert list(c.cost) == sorted(c.cost, reverse=True)
            assert c.limit_s == limit
    assert "for" in record.caption
    assert {r["tpot_limit_s"] for r in record.rows} == {limit for limit, _ in record.panels}


def test_variants_are_the_headline_case_with_more_weight_on_the_third(tmp_path):
    catalog = load_catalog()
    two = questions_of(read_study(_two(tmp_path), catalog), catalog)
    energy = questions_of(read_study(_study(tmp_path, "j_per_output_token"), catalog), catalog)
    first = questions_of(read_study(_study(tmp_path, "ttft_s"), catalog), catalog)
    assert two.variants == ()
    assert energy.cells == two.cells + (len(ENERGY_WEIGHTS) + 1) * len(two.limits_s)
    assert first.cells == two.cells + len(first.variants) * len(two.limits_s)
    assert energy.headline_cells == first.headline_cells == two.headline_cells
    limits = [v.ttft_limit_s for v in first.variants]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] < first.cases[0].ttft_limit_s


def _two(folder):
    path = folder / "two.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path
