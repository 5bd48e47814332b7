"""The catalogue: shipped files hold together, bad input is refused with every mistake named, chips equal their datasheets."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.catalog import load_catalog
from dse.catalog.bib import read_bib
from dse.catalog.describe import check, missing, new_chip, show
from dse.catalog.kernels import find_constants
from dse.catalog.records import Reader, Record, incomplete, read_record
from dse.catalog.schema import CONFIDENCE, kinds
from dse.errors import InputError

SOURCES = {"a-datasheet": {"title": "A datasheet"}}
GOOD = {"value": 700, "unit": "W", "source": "a-datasheet", "kind": "datasheet"}
CONTRACT_IDS = """nvidia-h100-sxm nvidia-h200-sxm nvidia-a100-40gb-pcie nvidia-a100-80gb-sxm nvidia-b200-sxm nvidia-gb200-nvl72 amd-mi300x
amd-mi355x nvidia-h800-sxm nvidia-l40s google-tpu-v4 google-tpu-v6e groq-lpu-v1 ibm-northpole hnlpu cerebras-wse-3 etched-sohu taalas-hc1
d-matrix-corsair human-brain seed-h100 seed-1pflops""".split()
MEASURED_NAMES = """A100-SXM4-80GB A100-PCIe-40GB H100-SXM5-80GB H800-SXM5-80GB B200-SXM-180GB GB200-186GB L40S-48GB MI355X-288GB
TPUv4 TPUv6e Groq-LPU-v1 Cerebras-WSE3""".split()
SPECIAL_NAMES = [
    "Groq LPU v1",
    "Cerebras CS-3",
    "DGX B200",
    "Sohu",
    "Taalas HC1",
    "NorthPole",
    "d-Matrix Corsair",
    "HNLPU",
    "TPU v4",
    "B200 TRT-LLM",
]


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def read(overlay: bool = False, kind: str = "chips", **fields) -> tuple[Record | None, list[str]]:
    problems: list[str] = []
    reader = Reader("x.toml", kinds()[kind], SOURCES, overlay, problems)
    return read_record({"id": "x", "family": "hbm_gpu", **fields}, reader), problems


def overlay(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.toml").write_text(text, encoding="utf-8")
    return folder


# --- shipped files ----------------------------------------------------------------------------------------------------


def test_the_shipped_catalogue_has_no_problem():
    assert check() == []


def test_every_shipped_field_is_in_the_schema(catalog):
    unknown = [
        f"{record.file}: {name}"
        for kind, records in catalog.records.items()
        for record in records.values()
        for name in record.values
        if kinds()[kind].find(name) is None
    ]
    assert unknown == [], "add these fields to dse/catalog/schema.toml"


def test_reading_records_brings_no_jax_and_no_pytree():
    code = (
        "import sys; from dse.catalog import load_catalog; c = load_catalog(); c.resolve('chips', 'H100'); assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ids_of_the_contract_exist(catalog):
    assert set(CONTRACT_IDS) <= set(catalog.chips)


@pytest.mark.parametrize("name", MEASURED_NAMES + SPECIAL_NAMES)
def test_names_of_measurement_files_are_aliases(catalog, name):
    assert catalog.resolve("chips", name) in catalog.chips


def test_every_chip_is_a_finite_tree_of_one_shape(catalog):
    shape = jax.tree.structure(catalog.chips["nvidia-h100-sxm"])
    for identity, chip in catalog.chips.items():
        assert jax.tree.structure(chip) == shape, identity
        assert all(isinstance(leaf, float) and math.isfinite(leaf) and leaf >= 0 for leaf in jax.tree.leaves(chip)), identity


def test_h100_equals_its_datasheet(catalog):
    chip = catalog.chips["nvidia-h100-sxm"]
    assert chip.peak_flop_per_s.bf16 == 989e12
    assert chip.peak_flop_per_s.fp8 == chip.peak_flop_per_s.int8 == 1979e12
    assert chip.peak_flop_per_s.fp4 == chip.peak_flop_per_s.fp8 and chip.computes.fp4 == 0.0
    assert chip.memory.capacity_byte == 80e9 and chip.memory.s_per_byte == pytest.approx(1 / 3.35e12)
    assert chip.scale_up.s_per_byte == pytest.approx(1 / 450e9) and chip.scale_up.chips == 8
    assert chip.tdp_w == 700 and chip.host_share == 1.0
    assert chip.sram.capacity_byte == 0.0  # a cache holds no weights
    assert chip.exp_per_s == pytest.approx(132 * 16 * 1.755e9)
    assert chip.unit_cost_usd == 3320 and chip.street_usd == 27500 and chip.has_street == 1.0
    assert chip.rent_usd_per_s == pytest.approx(1.30 / 3600)


def test_power_of_h100_at_peak_is_its_tdp(catalog):
    chip = catalog.chips["nvidia-h100-sxm"]
    load = chip.flop_j.bf16 * chip.peak_flop_per_s.bf16 + chip.memory.j_per_byte / chip.memory.s_per_byte + chip.static_w
    assert load == pytest.approx(chip.tdp_w, rel=0.05)


def test_int8_of_b300_is_not_its_fp8(catalog):
    chip = catalog.chips["nvidia-b300-sxm"]
    assert chip.peak_flop_per_s.int8 < chip.peak_flop_per_s.fp8 / 20


def test_a_missing_int8_rate_is_the_16_bit_one_never_the_8_bit_one(catalog):
    chip = catalog.chips["google-tpu-v7"]
    assert "peak_int8" not in catalog.records["chips"]["google-tpu-v7"].values
    assert chip.peak_flop_per_s.int8 == chip.peak_flop_per_s.bf16 < chip.peak_flop_per_s.fp8


@pytest.mark.parametrize("name", ["groq-lpu-v1", "cerebras-wse-3", "ibm-northpole"])
def test_sram_machines_hold_the_model_in_sram(catalog, name):
    chip = catalog.chips[name]
    assert chip.sram.capacity_byte > 0 and chip.sram.s_per_byte > 0
    assert chip.memory.capacity_byte == 0.0 == chip.memory.s_per_byte


def test_hardwired_machines_take_their_own_layer_time(catalog):
    chip = catalog.chips["taalas-hc1"]
    assert chip.weight_store.capacity_byte == pytest.approx(8.03e9 * 4 / 8, rel=1e-3) and chip.weight_store.s_per_byte == 0.0
    assert chip.kernels.system.layer_s == pytest.approx(1.8e-6) and chip.model_bound == 1.0
    assert 1 / (32 * chip.kernels.system.layer_s) == pytest.approx(17e3, rel=0.05)  # published: 15000 to 17000 token/s


def test_a_chip_keeps_its_familys_constants_but_those_that_its_own_file_replaces(catalog):
    groq, family = catalog.chips["groq-lpu-v1"].kernels, catalog.constants["sram"]
    assert groq.gemm == family.gemm and groq.system.host_s == family.system.host_s
    assert groq.system.layer_s == pytest.approx(1 / (750 * 32) - 2 * 3e-6, rel=2e-3)  # of the small model, without its exchanges
    assert groq.all_reduce.peer_s == 0.0 < family.all_reduce.peer_s and groq.all_reduce.one_shot_s == pytest.approx(3e-6)
    assert groq.all_reduce.ring_s == family.all_reduce.ring_s


def test_seed_h100_has_the_rounded_figures(catalog):
    chip = catalog.chips["seed-h100"]
    assert (chip.peak_flop_per_s.int8, chip.memory.capacity_byte) == (3e15, 80e9)
    assert chip.memory.s_per_byte == pytest.approx(1 / 3e12) and chip.scale_up.s_per_byte == pytest.approx(1e-12)
    assert chip.peak_flop_per_s.fp8 * chip.memory.s_per_byte == pytest.approx(1000)  # FLOP per byte


@pytest.mark.parametrize(
    ("chip", "how"),
    [
        ("nvidia-h100-sxm", "chip"),
        ("nvidia-h200-sxm", "generation"),
        ("nvidia-rubin-vr200", "vendor"),
        ("google-tpu-v4", "family"),
        ("groq-lp30", "family"),
    ],
)
def test_constants_by_chip_generation_vendor_family(catalog, chip, how):
    assert catalog.constants_of(chip)[1] == how


def test_constants_of_a_gpu_vendor_do_not_serve_its_other_families():
    record = Record("x", "chips", "x", "x.toml", {"family": "sram", "vendor": "NVIDIA"})
    constants = {
        "nvidia": Record("nvidia", "constants", "", "", {"vendor": "nvidia"}),
        "sram": Record("sram", "constants", "", "", {"family": "sram"}),
    }
    assert find_constants(record, constants, "sram") == ("sram", "family")
    named = dataclasses.replace(record, meta={**record.meta, "constants": "nvidia"})
    assert find_constants(named, constants, "sram") == ("nvidia", "chip")
    with pytest.raises(InputError, match="did you mean 'nvidia'"):
        find_constants(dataclasses.replace(record, meta={**record.meta, "constants": "nvdia"}), constants, "sram")


def test_filled_leaves_name_the_file_they_come_from(catalog):
    filled = dict(catalog.filled("nvidia-h100-sxm"))
    assert "processes/n5.toml: leakage" in filled["static_w"]
    assert "unit_cost_usd" not in filled and "tdp_w" not in filled  # the chip's own file gives them
    assert "vendor_multiple" not in dict(catalog.filled("nvidia-h100-sxm")).get("unit_cost_usd", "")


def test_what_was_not_found_in_print_is_an_estimate(catalog):
    for record in catalog.records["chips"].values():
        for name, quantity in record.values.items():
            if "not found in print" in (quantity.note or ""):
                assert quantity.kind in ("estimate", "assumption", "claim"), f"{record.id}: {name}"


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_good_number_is_read_in_si():
    record, problems = read(memory_capacity={**GOOD, "value": 80, "unit": "GiB"}, tdp={**GOOD, "low": 600, "high": 800, "kind": "estimate"})
    assert problems == [] and record is not None
    assert record.values["memory_capacity"].value == 80 * 2**30 and record.values["memory_capacity"].text_unit == "GiB"
    assert (record.values["tdp"].low, record.values["tdp"].high) == (600.0, 800.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "Wat"}, "found 'Wat', allowed units"),
        ({"unit": "TB/s"}, "allowed a unit of W, such as 700 W"),
        ({"unit": None}, "found no unit"),
        ({"source": None}, "found no source"),
        ({"source": "a-datashet"}, "did you mean 'a-datasheet'"),
        ({"source": "derived"}, "without a note"),
        ({"kind": "datashet"}, "did you mean 'datasheet'"),
        ({"kind": "estimate"}, "without low and high"),
        ({"kind": "estimate", "low": 900, "high": 1000}, "allowed low <= value <= high"),
        ({"kind": "estimate", "low": 600}, "without low and high"),
        ({"value": -700}, "found value = -700, allowed a number above 0"),
        ({"value": float("nan")}, "allowed a finite number"),
        ({"value": float("inf")}, "allowed a finite number"),
        ({"value": "700"}, "found value = '700', allowed a number"),
        ({"value": True}, "allowed a number"),
        ({"vale": 3}, "found the key 'vale'"),
    ],
)
def test_each_mistake_is_named(change, message):
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    record, problems = read(tdp=entry)
    assert any(problem.startswith("x.toml: tdp — ") and message in problem for problem in problems), problems
    assert record is None or "tdp" not in record.values


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hbm_bandwith": GOOD}, "unknown field"),
        ({"memory_bandwith": GOOD}, "did you mean 'memory_bandwidth'"),
        ({"stats": "existing"}, "did you mean 'status'"),
        ({"status": "exists"}, "did you mean 'existing'"),
        ({"tdp": "700 W"}, "allowed a number with value, unit, source and kind"),
        ({"id": "NVIDIA H100"}, "allowed lower-case letters"),
        ({"aliases": "H100"}, "allowed a list of names"),
        ({"price": {**GOOD, "unit": "USD"}}, "dollars of a stated year, such as USD_2026"),
        ({"price": {**GOOD, "unit": "USD_2026"}}, "found no as_of"),
    ],
)
def test_fields_and_words(fields, message):
    _, problems = read(**fields)
    assert any(message in problem for problem in problems), problems


def test_five_mistakes_give_five_lines():
    _, problems = read(
        tdp={**GOOD, "unit": "Wat"},
        die_area={**GOOD, "unit": "GB"},
        peak_bf16={**GOOD, "unit": "TFLOP/s", "source": "nowhere"},
        clock={**GOOD, "unit": "GHz", "kind": "estimate", "low": 900, "high": 1000},
        memory_bandwith={**GOOD, "unit": "TB/s"},
    )
    assert len(problems) == 5


def test_a_chip_without_power_is_incomplete():
    record, _ = read()
    assert record is not None
    needs = incomplete(record, kinds()["chips"])
    assert any(line.startswith("x.toml: tdp — found nothing") for line in needs)
    assert any(line.startswith("x.toml: price — ") and "die_area" in line for line in needs)


@given(
    value=st.floats(allow_nan=True, allow_infinity=True),
    low=st.none() | st.floats(),
    high=st.none() | st.floats(),
    unit=st.sampled_from(["W", "kW", "GB", "Wat", ""]),
    kind=st.sampled_from([*CONFIDENCE, "guess"]),
    source=st.sampled_from(["a-datasheet", "assumption", "nowhere"]),
)
def test_what_is_accepted_is_sound_and_what_is_not_is_explained(value, low, high, unit, kind, source):
    entry = {"value": value, "unit": unit, "kind": kind, "source": source, "low": low, "high": high}
    record, problems = read(tdp={key: item for key, item in entry.items() if item is not None})
    assert record is not None
    if problems:
        assert "tdp" not in record.values and all(problem.startswith("x.toml: tdp — found") for problem in problems)
    else:
        quantity = record.values["tdp"]
        assert math.isfinite(quantity.value) and quantity.value > 0 and unit in ("W", "kW") and source == "a-datasheet"
        assert quantity.low is None or quantity.low <= quantity.value <= quantity.high  # type: ignore[operator]


def test_bib_finds_duplicates_and_missing_titles():
    entries, problems = read_bib(
        "@misc{a, title = {One, {T}wo}, url = {http://x.y}}\n% @misc{c,}\n@misc{a, title={B}}\n@misc{b, year = {2020}}"
    )
    assert set(entries) == {"a", "b"} and len(problems) == 2
    assert "a — found twice" in problems[0] and "b — found no title" in problems[1]


# --- overlays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", kinds()["chips"].choices["family"])
def test_a_new_chip_of_twenty_plain_lines_is_a_chip(tmp_path, family):
    text = new_chip("my-chip", family)
    assert 15 <= sum(1 for line in text.splitlines() if line and not line.startswith("#")) <= 22
    mine = load_catalog(overlay(tmp_path, my_chip=text))
    chip = mine.chips["my-chip"]
    assert chip.tdp_w == 700.0 and chip.peak_flop_per_s.bf16 == 989e12 and chip.has_street == 1.0
    assert chip.unit_cost_usd == pytest.approx(27500 / 5)  # no bill of materials: street price over the vendor's multiple
    quantity = mine.records["chips"]["my-chip"].values["tdp"]
    assert (quantity.kind, quantity.low) == ("assumption", None) and quantity.source.endswith("my-chip.toml")
    assert "unit_cost_usd" in dict(mine.filled("my-chip"))


def test_an_unknown_family_is_named():
    with pytest.raises(InputError, match="did you mean 'hbm_gpu'"):
        new_chip("x", "hbm-gpu")


def test_an_overlay_of_a_shipped_id_changes_only_what_it_says(tmp_path, catalog):
    mine = load_catalog(overlay(tmp_path, cheap='id = "nvidia-h100-sxm"\nfamily = "hbm_gpu"\nprice = "20_000 USD"\nlink_domain = 16\n'))
    chip, shipped = mine.chips["nvidia-h100-sxm"], catalog.chips["nvidia-h100-sxm"]
    assert chip.street_usd == 20000 and chip.scale_up.chips == 16
    assert chip.peak_flop_per_s == shipped.peak_flop_per_s and chip.memory == shipped.memory
    assert mine.sha256 != catalog.sha256


def test_mistakes_of_all_files_come_at_once(tmp_path):
    bad = {"a_chip": 'family = "hbm_gp"\ntdp = "700 Wat"\n', "b_chip": 'family = "sram"\ntdpp = "1 W"\n', "c_chip": "tdp = 1"}
    with pytest.raises(InputError) as error:
        load_catalog(overlay(tmp_path, **bad))
    text = str(error.value)
    for part in (
        "a-chip.toml: family — found 'hbm_gp'",
        "a-chip.toml: tdp — ",
        "b-chip.toml: tdpp — ",
        "did you mean 'tdp'",
        "c-chip.toml: kind — ",
    ):
        assert part in text


def test_two_files_must_not_share_a_name(tmp_path):
    text = new_chip("mine", "hbm_gpu") + 'aliases = ["h100-SXM5-80gb"]\n'
    with pytest.raises(InputError, match="aliases — found"):
        load_catalog(overlay(tmp_path, mine=text))


def test_a_price_view_may_be_written_in_plain_words(tmp_path):
    folder = tmp_path / "prices"
    folder.mkdir()
    overlay(folder, mine='id = "mine"\nbase = "owner-2026"\nview = "margin"\nutilisation = 0.9\nlife = "5 year"\n')
    prices = load_catalog(tmp_path).prices["mine"]
    assert prices.utilisation == 0.9 and prices.life_year == pytest.approx(5)
    overlay(folder, mine='id = "mine"\nbase = "owner-2026"\nview = "margin"\nutilization = 0.9\n')
    with pytest.raises(InputError, match="did you mean 'utilisation'"):
        load_catalog(tmp_path)


def test_resolve_takes_ids_aliases_and_paths(tmp_path, catalog):
    assert catalog.resolve("chips", "h100-sxm5-80gb") == "nvidia-h100-sxm"
    with pytest.raises(InputError, match="did you mean 'nvidia-h100-sxm'"):
        catalog.resolve("chips", "nvidia-h100")
    with pytest.raises(InputError, match="did you mean 'chips'"):
        catalog.resolve("chip", "nvidia-h100-sxm")
    own = load_catalog()
    path = overlay(tmp_path, mine=new_chip("mine", "sram")) / "mine.toml"
    before = own.sha256
    assert own.resolve("chips", str(path)) == "mine" and own.sha256 != before
    assert own.chips["mine"].sram.capacity_byte == 230e6


def test_a_wrong_file_leaves_the_catalogue_as_it_was(tmp_path):
    own = load_catalog()
    path = overlay(tmp_path, mine='id = "nvidia-h100-sxm"\ntdp = "7 parsec"\n') / "mine.toml"
    with pytest.raises(InputError, match="parsec"):
        own.resolve("chips", str(path))
    assert own.chips["nvidia-h100-sxm"].tdp_w == 700.0
    with pytest.raises(InputError, match="cannot be read"):
        own.resolve("chips", str(tmp_path / "none.toml"))


def test_an_overlay_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="found no folder"):
        load_catalog(tmp_path / "none")
    assert check(tmp_path / "none")


# --- texts ------------------------------------------------------------------------------------------------------------


def test_show_prints_values_as_written_with_source_and_interval(catalog):
    text = show(catalog.records["chips"]["nvidia-h100-sxm"], catalog)
    assert "3.35 TB/s" in text and "27500 USD_2026 (25000 USD_2026 to 30000 USD_2026)" in text and "as of 2026-05" in text
    assert "H100-SXM5-80GB" in text and "constants: nvidia-h100 (by chip)" in text and "static_w from" in text


def test_what_is_missing_begins_with_chips_that_cannot_be_described(catalog):
    rows = missing(catalog)
    undescribed = [row["chip"] for row in rows if not row["described"]]
    assert "matx-one" in undescribed and not set(undescribed) & set(catalog.chips)
    by_id = {row["chip"]: row for row in rows}
    assert "price" in by_id["nvidia-h200-sxm"]["lacks"] and "price" not in by_id["nvidia-h100-sxm"]["lacks"]


def test_an_unknown_id_suggests_the_closest(catalog):
    with pytest.raises(KeyError, match="did you mean 'nvidia-h100-sxm'"):
        catalog.chips["nvidia-h100-sxn"]
