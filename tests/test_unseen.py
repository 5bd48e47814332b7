"""Rows of chips that no fit has seen: are they unseen, sourced, predicted, and is what README says of them what the rows give?"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from dse.catalog import load_catalog
from dse.paths import data_dir
from dse.validate import outcomes
from dse.validate.page import _chips_unseen
from dse.validate.resolve import Chips
from dse.validate.rows import every_row, read_folder
from dse.validate.unseen import ALL, CONTROL, by_chip, markdown

FOLDER = Path(__file__).resolve().parent.parent / "reports" / "validation" / "unseen"
EVERY = 9  # one row of so many is predicted here


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


@pytest.fixture(scope="module")
def rows():
    return read_folder(FOLDER)


def chips_of(folder: Path, catalog) -> set[str]:
    tables, peaks = read_folder(folder)
    chips = Chips(catalog, peaks)
    names = {row.get("chip") or row.get("hardware", "") for _, row in every_row(tables)}
    return {found.id if (found := chips.find(name)) else name for name in names}


def test_no_fit_can_have_seen_these_chips(catalog):
    ours = chips_of(FOLDER, catalog)
    assert ours == {"nvidia-h200-sxm", "GH200-96GB", "amd-mi300x", "amd-mi325x", "intel-gaudi3"}
    assert not ours & chips_of(data_dir("hw_catalog") / "measurements", catalog)
    fitted = {c for r in catalog.records["constants"].values() for c in r.meta.get("applies_to_chips", [])}
    assert not ours & fitted
    assert chips_of(FOLDER / CONTROL, catalog) <= fitted


def test_every_row_names_its_source_and_licence(rows):
    found = [row for _, row in every_row(rows[0])]
    assert len({row["id"] for row in found}) == len(found) == 711
    assert all("@" in row["source"] and row["licence"].startswith("Apache-2.0") for row in found)
    figures = Counter(
        (*(row[c] for c in ("chip", "model", "mode", "tp", "ep", "batch_or_concurrency", "isl", "osl", "software", "metric", "note")),)
        for row in found
    )
    assert max(figures.values()) == 1  # no run stands there twice


def test_the_page_counts_the_rows(rows, catalog):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    chips = Chips(catalog, rows[1])
    counted = Counter(chips.find(row["chip"]).id for _, row in every_row(rows[0]))
    said = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert {
        chip: int(n.replace(",", "")) for chip, _, what, n, *_ in (c for c in said if len(c) == 7) if what == ALL and chip in counted
    } == counted


@pytest.fixture(scope="module")
def thinned(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("unseen")
    (folder / "chip_peaks.csv").write_bytes((FOLDER / "chip_peaks.csv").read_bytes())
    for name, table in rows[0].items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(row for row in table[::EVERY] if row["mode"] != "disagg")  # one program fewer to compile
    return folder


def test_a_sibling_of_a_fitted_chip_is_predicted_from_its_datasheet(thinned, catalog):
    done = outcomes(thinned, catalog)
    assert not [o.skipped_reason for o in done if o.predicted is None]
    found = by_chip(done, thinned, catalog)
    whole = {r["chip"]: r for r in found if r["what"] == ALL}
    assert sum(r["n"] for r in whole.values()) == sum(r["n"] for r in found if r["what"] != ALL) == len(done)
    assert {whole[c]["constants"] for c in ("nvidia-h200-sxm", "GH200-96GB")} == {"nvidia-h100"}
    assert whole["nvidia-h200-sxm"]["median"] < 0.2
    assert whole["GH200-96GB"]["median"] < 0.2
    assert whole["intel-gaudi3"]["median"] > whole["nvidia-h200-sxm"]["median"]  # no relative was measured


def test_the_table_says_what_the_rows_say():
    row = {"chip": "<x>", "constants": "y", "what": ALL, "n": 1200, "median": 0.1234, "p90": 0.5, "bias": -0.02}
    assert markdown([row]).splitlines()[-1] == "| <x> | y | all | 1,200 | 12.3 % | 50 % | -2 % |"
    assert "&lt;x&gt;" in _chips_unseen([row]) and "12 %" in _chips_unseen([row])
    assert _chips_unseen([]) == ""
