"""Does a search begin with an earlier result's designs, moved into its own ranges, and refuse to go on from others?"""

from __future__ import annotations

import csv

import numpy as np
import pytest

from dse.earlier import earlier_designs, earlier_points, find_result
from dse.errors import InputError
from dse.run import run_study
from dse.space import Space, Variable
from tests.test_proofs import STUDY

SPACE = Space(
    "toy",
    (
        Variable("node", kind="choice", choices=("n7", "n5", "n3"), allowed=("n5", "n3")),
        Variable("dies", kind="int", low=1, high=4, default=2),
        Variable("bandwidth", low=1e9, high=1e12, log=True),
        Variable("share", low=0.2, high=0.8),
    ),
)
NAMES = ("design_id", "family", "status", "node", "dies", "bandwidth", "share", "stray")
ROWS = [
    dict(zip(NAMES, row, strict=True))
    for row in (
        ("a", "toy", "hypothetical", "n3", "2", "1e10", "0.5", "7"),
        ("a", "toy", "hypothetical", "n3", "2", "1e10", "0.5", "8"),
        ("b", "toy", "hypothetical", "n5", "9", "1e13", "", ""),
        ("c", "toy", "hypothetical", "n7", "1", "1e10", "0.5", ""),
        ("d", "toy", "existing", "n5", "1", "1e10", "0.5", ""),
        ("e", "other", "hypothetical", "n5", "1", "1e10", "0.5", ""),
    )
]


@pytest.fixture
def table(tmp_path):
    with (tmp_path / "designs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path


def test_each_design_comes_once_and_inside_the_ranges(table):
    assert earlier_designs(str(table), SPACE) == [
        {"node": "n3", "dies": 2, "bandwidth": 1e10, "share": 0.5},
        {"node": "n5", "dies": 4, "bandwidth": 1e12},  # beyond the ranges: moved to their ends; what is blank takes its default
    ]
    points = earlier_points(str(table / "designs.csv"), SPACE)
    assert points.shape == (2, 4)
    np.testing.assert_allclose(points[0, 2], 1 / 3)
    assert (points >= 0).all() and (points <= 1).all()


def test_a_result_that_is_not_there_is_told_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"search\.warm_start — found 'nowhere', allowed a folder with designs\.csv"):
        find_result("nowhere", tmp_path)
    (tmp_path / "designs.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="a table without design_id"):
        earlier_points(str(tmp_path), SPACE)


def test_a_small_search_that_begins_with_a_longer_ones_designs_is_no_worse(tmp_path):
    text = STUDY.replace("certify = 1000\ngap = 0.05\n", "")
    (tmp_path / "long.toml").write_text(text.replace("finish = 20", "finish = 60"), encoding="utf-8")
    first = run_study(tmp_path / "long.toml", out=tmp_path / "long", seed=1)
    short = text.replace('name = "small"', 'name = "short"').replace("finish = 20", "finish = 1") + f'warm_start = "{tmp_path / "long"}"\n'
    (tmp_path / "short.toml").write_text(short, encoding="utf-8")
    second = run_study(tmp_path / "short.toml", out=tmp_path / "short", seed=2, budget=16)

    def costs(ds):
        return ds["usd_per_million_output_token"].min("design").values

    assert (costs(second) <= costs(first) * (1 + 1e-6)).all()  # digits of the table
    rows = (tmp_path / "long" / "designs.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "long" / "designs.csv").write_text("\n".join(rows[:2]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="warm_start_sha256 — the storage holds"):
        run_study(tmp_path / "short.toml", out=tmp_path / "short", seed=2, budget=16, resume=True)
