"""Does a study file mean what it says, and does it name every mistake it has?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dse.catalog import load_catalog
from dse.errors import InputError
from dse.study import check_study, find_study, new_study, parse_study, read_study, seconds, shipped_studies

MINIMAL = """
title = "t"
budget = 10
models = ["llama-3-8b"]
workloads = ["chat"]
scenarios = ["owner-2026"]
real_chips = ["nvidia-h100-sxm"]
[limits]
tpot = ["20 ms", "0.1 s", "5000 us"]
"""
HERE = Path("studies/x.toml")


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def problems_of(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_study(text, HERE)
    return caught.value.problems


def with_line(line: str) -> str:
    """The minimal study with one more top-level line."""
    return line + "\n" + MINIMAL


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_shipped_studies_agree_with_the_catalogue(name, catalog):
    study = read_study(name)
    assert study.name == name
    assert study.label == f"studies/{name}.toml"
    assert read_study(study.path).sha256 == study.sha256
    assert check_study(study, catalog) == []


def test_the_main_study_is_the_one_that_is_promised():
    study = read_study("gpu_vs_sram_vs_asic")
    assert study.models == ("llama-3-70b", "deepseek-r1")
    assert len(study.cases) == 8
    assert study.limits.tpot == (0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005, 0.003, 0.002, 0.001)
    assert study.headline.tpot == 0.02
    assert set(study.families) == {"hbm_gpu", "transformer_asic", "sram", "compute_in_memory", "burned_in", "stacked_dram"}
    assert study.families["sram"]["node"] == ["n7", "n6", "n5", "n4", "n3"]


def test_what_is_left_out_has_a_stated_default():
    study = parse_study(MINIMAL, HERE)
    assert study.name == "x"
    assert study.limits.tpot == (0.1, 0.02, 0.005)  # in seconds, descending, whatever the order and the units
    assert study.headline == dataclasses.replace(study.headline, model="llama-3-8b", workload="chat", scenario="owner-2026", tpot=0.02)
    assert (study.seed, study.max_seconds, study.families) == (0, None, {})
    assert study.search.sampler == "nsga2"
    assert study.layouts.pp is None
    assert study.objectives == ("usd_per_million_output_token", "tpot_s")


def test_five_mistakes_are_five_lines_of_one_error():
    text = """
title = "t"
budgt = 5
budget = -3
models = ["llama-3-8b", "llama-3-8b"]
workloads = ["chat"]
scenarios = ["owner-2026"]
[limits]
tpot = ["20 GB"]
[families.sramm]
"""
    found = problems_of(text)
    assert len(found) == 5
    assert all(line.startswith("studies/x.toml: ") and " — found " in line and ", allowed " in line for line in found)
    joined = "\n".join(found)
    for part in ("budgt", "did you mean 'budget'?", "found -3", "stands there twice", "'20 GB'", "families.sramm", "did you mean 'sram'?"):
        assert part in joined


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seed = -1", "seed — found -1, allowed a whole number from 0"),
        ("seed = true", "seed — found True, allowed a whole number"),
        ("max_seconds = 0", "max_seconds — found 0, allowed a number above 0"),
        ("max_seconds = inf", "max_seconds — found inf"),
        ('name = "a/b"', "name — found 'a/b'"),
        ('objectives = ["tpots"]', "did you mean 'tpot_s'?"),
        ('objectives = ["tpot_s", "ttft_s"]', "allowed ['usd_per_million_output_token', 'tpot_s'] or"),
        ('objectives = ["family"]', "objectives — found ['family'], allowed in place of 'family' a metric"),
        ("search = 3", "search — found 3, allowed a table"),
        ('search = { sampler = "nsga4" }', "did you mean 'nsga3'?"),
        ("search = { asked = 0, explore = false }", "search.asked — found a round without chips"),
        ('layouts = { formats = ["fp7"] }', "did you mean 'fp8'?"),
        ("layouts = { tp = [0] }", "layouts.tp — found [0], allowed in place of 0 a whole number from 1"),
        ("layouts = { batch = [] }", "allowed a list with at least one value"),
        ('layouts = { ep = ["half"] }', "layouts.ep"),
        ('headline = { tpot = "30 ms" }', "headline.tpot — found '30 ms', allowed one of limits.tpot: 100 ms, 20 ms, 5 ms"),
        ('headline = { model = "llama-3-70b" }', "headline.model — found 'llama-3-70b', allowed llama-3-8b"),
        ('families = { sram = "yes" }', "families.sram — found 'yes', allowed a table"),
        ("families = { other = {} }", "families.other — found an unknown field"),
        ('families = { sram = { nodes = ["n5"], node = "n7" } }', "families.sram.node — found nodes beside it"),
        ("families = { sram = { nodes = [5] } }", "families.sram.nodes — found [5]"),
    ],
)
def test_each_mistake_is_named(line, expected):
    found = problems_of(with_line(line))
    assert len(found) == 1
    assert expected in found[0]


def test_a_missing_field_is_named_once_and_a_limit_of_an_unlisted_workload_is_refused():
    assert problems_of(MINIMAL.replace("budget = 10\n", "")) == ["studies/x.toml: budget — found nothing, allowed a whole number from 1"]
    assert problems_of(MINIMAL.replace("[limits]\n", '[limits]\nttft = { caht = "1 s" }\n')) == [
        "studies/x.toml: limits.ttft.caht — found an unknown field, allowed chat; did you mean 'chat'?"
    ]
    assert "no chip at all" in problems_of(MINIMAL.replace('real_chips = ["nvidia-h100-sxm"]\n', ""))[0]
    assert problems_of("title = ")[0].startswith("studies/x.toml: TOML — ")


@pytest.mark.parametrize("text", ["20", "ms", "-5 ms", "0 s", "1 GB", "nan s", "", "20 ms 3", "1e999 s"])
def test_a_time_without_sense_is_refused(text):
    with pytest.raises(InputError, match="--max-tpot — found"):
        seconds(text, "--max-tpot")


def test_names_are_held_against_the_catalogue(catalog):
    text = MINIMAL.replace("llama-3-8b", "llama-3-8").replace('"chat"', '"1k1k"').replace("nvidia-h100-sxm", "H100")
    text += '[families.sram]\nnodes = ["n5", "n0"]\ndie_aria_mm2 = [100, 200]\n'
    found = check_study(parse_study(text, HERE), catalog)
    joined = "\n".join(found)
    assert "models — found 'llama-3-8', allowed an id of the catalogue's models; did you mean 'llama-3-8b'?" in joined
    assert "workloads — found '1k1k'" in joined
    assert "did you mean 'chat'?" in joined
    assert "real_chips — found 'H100'" in joined
    assert "did you mean 'nvidia-h100-sxm'?" in joined
    assert "families.sram.die_aria_mm2" in joined
    assert "did you mean 'die_area_mm2'?" in joined
    assert all(line.startswith("studies/x.toml: ") for line in found)


def test_a_node_that_no_process_file_describes_is_refused(catalog):
    found = check_study(parse_study(MINIMAL + '[families.sram]\nnodes = ["n0"]\n', HERE), catalog)
    assert len(found) == 1
    assert "families.sram.node" in found[0]


def test_a_family_that_takes_none_of_the_formats_is_refused(catalog):
    family = catalog.records["families"]["hbm_gpu"]
    choosy = dataclasses.replace(family, meta={**family.meta, "formats": ["bf16", "fp8"]})
    records = {**catalog.records, "families": {**catalog.records["families"], "hbm_gpu": choosy}}
    text = MINIMAL + '[families.hbm_gpu]\n[layouts]\nformats = ["int3"]\n'
    found = check_study(parse_study(text, HERE), dataclasses.replace(catalog, records=records))
    assert len(found) == 1
    assert "layouts.formats — found none that hbm_gpu takes, allowed bf16, fp8" in found[0]


def test_a_workload_without_a_limit_needs_one(catalog):
    chat = catalog.records["workloads"]["chat"]
    bare = dataclasses.replace(chat, values={k: v for k, v in chat.values.items() if k != "ttft_limit"})
    records = {**catalog.records, "workloads": {**catalog.records["workloads"], "chat": bare}}
    without = dataclasses.replace(catalog, records=records)
    assert "limits.ttft.chat — found nothing" in check_study(parse_study(MINIMAL, HERE), without)[0]
    given = MINIMAL.replace("[limits]\n", '[limits]\nttft = { chat = "1 s" }\n')
    assert check_study(parse_study(given, HERE), without) == []
    assert parse_study(given, HERE).limits.ttft == {"chat": 1.0}


def test_studies_are_found_by_path_own_name_and_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_study("quick") == shipped_studies()["quick"]
    path = new_study("mine", "quick")
    assert path == Path("studies/mine.toml")
    assert find_study("mine") == path
    mine, quick = read_study("mine"), read_study("quick")
    assert mine.name == "mine"
    assert mine.sha256 != quick.sha256
    assert mine.text.replace('name = "mine"', 'name = "quick"') == quick.text  # nothing else changes, comments stay
    with pytest.raises(InputError, match="found one that exists"):
        new_study("mine", "quick")
    with pytest.raises(InputError, match="did you mean 'mine'"):
        find_study("minee")
    with pytest.raises(InputError, match=r"no file 'studies/no\.toml'"):
        find_study("studies/no.toml")
    with pytest.raises(InputError, match=r"study: name — found '\.\./x'"):
        new_study("../x", "quick")
