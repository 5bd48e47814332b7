"""Does README tell the truth: its code runs, its commands exist and work, its links lead somewhere, its figures are those of the result?"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dse.catalog import load_catalog
from dse.cli import main
from dse.questions import real_chips
from dse.study import read_study

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COSTLY = ("run", "new", "validate", "analyse", "certify", "bench")  # of the commands, those that write or take long

spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
assert spec and spec.loader
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == "dse"]


def test_the_python_block_runs(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    cost, *times = capsys.readouterr().out.split("\n", 1)
    assert 0.05 < float(cost) < 50
    assert "nan" not in times[0]


def test_there_are_commands_to_try():
    assert {words[0] for words in commands()} >= {"eval", "best", "explain", "catalog", "run"}


@pytest.mark.parametrize("words", [w for w in commands() if w[0] not in COSTLY], ids=" ".join)
def test_the_cheap_commands_work(words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("words", [w for w in commands() if w[0] in COSTLY], ids=" ".join)
def test_the_costly_commands_have_these_options(words, capsys):
    assert main([words[0], "--help"]) == 0
    said = capsys.readouterr().out
    assert [w for w in words if w.startswith("--") and w not in said] == []


def test_make_targets_exist():
    targets = re.findall(r"^make ([a-z]+)", "\n".join(blocks("sh")), re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and [t for t in targets if not re.search(rf"^{t}:", makefile, re.M)] == []


def test_links_lead_somewhere():
    links = [x for x in re.findall(r"\]\(([^)\s]+)\)", TEXT) if not x.startswith("http")]
    assert [x for x in links if not x.startswith("reports/") and not (ROOT / x).exists()] == []


def test_the_chip_of_the_readme_is_the_one_of_the_examples():
    (shown,) = blocks("toml")
    assert tomllib.loads(shown) == tomllib.loads((ROOT / "examples" / "my_chip.toml").read_text(encoding="utf-8"))


def test_a_chip_of_ones_own_is_drawn_by_its_name_not_as_one_of_the_search():
    catalog = load_catalog()
    chip = catalog.resolve("chips", str(ROOT / "examples" / "my_chip.toml"))
    found = real_chips(read_study("quick"), catalog, [chip])[-1]
    assert (found.design.chip, found.design.status) == ("My chip", "proposed")
    assert "fp8" in found.formats
    assert found.design.family == "transformer_asic"


def test_the_computed_sentences_are_those_of_the_committed_result():
    folder = ROOT / "reports" / readme.STUDY
    if not (folder / "designs.csv").is_file():
        pytest.skip("no result is committed yet")
    assert readme.rewritten(TEXT, folder) == TEXT, "make readme"


def test_markers_are_replaced_and_nothing_else():
    text = readme.put(f"a\n{readme.ANSWER}\nold\n{readme.END}\nb\n{readme.ERRORS}\n{readme.END}\nc", readme.ANSWER, "new")
    assert text == f"a\n{readme.ANSWER}\nnew\n{readme.END}\nb\n{readme.ERRORS}\n{readme.END}\nc"


@pytest.mark.long
def test_the_table_of_errors_is_that_of_the_measurements():
    from dse.validate import validate

    assert readme.put(TEXT, readme.ERRORS, readme.error_table(validate()["groups"])) == TEXT, "make readme"
