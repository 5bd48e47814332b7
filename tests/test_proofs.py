"""Does a family's search end when its proved gap is small enough, stay ended when resumed, and go on when it is not?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from dse import hunt, proofs
from dse.catalog import load_catalog
from dse.errors import InputError
from dse.hunt import CHECKS, Hunt, search_shard
from dse.questions import shards_of
from dse.results import load
from dse.run import run_study
from dse.study import read_study

STUDY = """
name = "small"
title = "Small"
question = "When does it end?"
seed = 7
budget = 128
models = ["llama-3-8b"]
workloads = ["chat"]
scenarios = ["owner-2026"]
[limits]
tpot = ["50 ms", "10 ms"]
max_chips = 64
[headline]
model = "llama-3-8b"
workload = "chat"
scenario = "owner-2026"
tpot = "10 ms"
[families.hbm_gpu]
nodes = ["n5"]
[layouts]
tp = [1, 2, 4]
pp = [1, 4]
dp = [1]
ep = ["none"]
batch = [1, 8, 32, 128, 256]
formats = ["bf16", "fp8"]
[search]
asked = 4
bred = 12
finish = 20
polish = false
certify = 1000
gap = 0.05
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proofs")
    (folder / "small.toml").write_text(STUDY, encoding="utf-8")
    return folder


class Claimed:
    """Stands for a certificate: all that the stop rule reads is its bound."""

    def __init__(self, bound):
        self.bound = bound


@pytest.mark.parametrize("bound, ended", [(1e9, True), (0.0, False), (None, False)])
def test_a_search_ends_at_the_first_check_that_finds_a_small_gap(home, tmp_path, monkeypatch, bound, ended):
    asked = []
    monkeypatch.setattr(hunt, "prove_headline", lambda *a: asked.append(a) or Claimed(bound))
    catalog = load_catalog()
    study = read_study(home / "small.toml", catalog)
    (shard,) = shards_of(study, catalog)
    ticks: list[int] = []
    job = Hunt(str(study.path), None, catalog.sha256, 128, 7, str(tmp_path / "journal"), True)
    found = search_shard(shard, job, study, catalog, lambda chips, _: ticks.append(chips))
    assert found.counts["ended_by_gap"] == int(ended)
    assert found.counts["chips_screened"] == (128 // CHECKS if ended else 128)
    assert len(asked) == (1 if ended else CHECKS - 1)  # after the last one there is nothing to stop
    assert found.finished
    again = search_shard(shard, job, study, catalog, lambda chips, _: None)
    assert dict(again.counts) == dict(found.counts)
    np.testing.assert_array_equal(again.archive.costs, found.archive.costs)


@pytest.mark.parametrize("text", ["certify = 0", "finish = 0", "explore = false"])
def test_a_gap_needs_a_proof_and_a_finish(home, text):
    key = text.split(" ")[0]
    lines = [line for line in STUDY.splitlines() if not line.startswith(key)]
    path = home / f"without_{key}.toml"
    path.write_text("\n".join([*lines, text]), encoding="utf-8")
    with pytest.raises(InputError, match=r"search\.gap — found 0\.05 without a proof"):
        read_study(path)


@pytest.mark.long
def test_a_run_proves_its_headline_itself_and_a_resumed_one_takes_the_certificate(home):
    path = home / "proved.toml"
    path.write_text(STUDY.replace("certify = 1000", "certify = 60000").replace("gap = 0.05", "gap = 0.02"), encoding="utf-8")
    ds = run_study(path, out=home / "out")
    (row,) = json.loads(ds.attrs["certificates"])
    assert row["family"] == "hbm_gpu"
    assert 0 <= row["optimality_gap"] < 0.02
    assert row["found_by_the_study"] >= row["lower_bound"]
    assert ds.attrs["stopped_by"] == "proved gap"
    (file,) = (home / "out" / proofs.FOLDER).iterdir()
    before = file.stat().st_mtime_ns
    again = run_study(path, out=home / "out", resume=True)
    assert file.stat().st_mtime_ns == before
    assert again.attrs["certificates"] == ds.attrs["certificates"]
    assert load(home / "out").attrs["stopped_by"] == "proved gap"
