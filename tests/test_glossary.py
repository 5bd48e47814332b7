"""Is the glossary complete for the contract, and does it refuse what is wrong?"""

import pytest

from dse import glossary
from dse.errors import InputError

CONTRACT = """feasible violations chips batch layout format tpot_s ttft_s tpot_p99_s ttft_p99_s interactivity_token_per_s
output_token_per_s_per_chip total_token_per_s_per_chip cost_usd_per_s usd_per_million_output_token usd_per_million_token
usd_per_chip_hour j_per_output_token facility_power_w mfu mbu mfu_prefill bound bound_prefill time_s memory_byte_per_chip
constants low high tp pp cp dp ep on_front elasticity lower_bound optimality_gap design family chip status model workload
scenario tpot_limit_s""".split()
ARITHMETIC = {"fp32", "bf16", "fp8", "fp4", "int8"}
KERNELS = {"bf16", "fp8", "fp8_block", "int8", "nvfp4", "mxfp4", "int4"}


def test_every_key_of_the_contract_is_defined():
    assert [key for key in CONTRACT if key not in glossary.load().entries] == []


def test_formats_of_the_contract_in_order_of_width():
    formats = glossary.load().formats
    assert set(formats) == {"fp32", "bf16", "fp8", "fp8_block", "int8", "nvfp4", "mxfp4", "int6", "int5", "int4", "int3"}
    for rule in formats.values():
        assert rule.kernel in KERNELS
        assert {rule.compute, rule.compute_gpu, rule.without} <= ARITHMETIC
        assert rule.bits / 8 <= rule.weight_byte <= rule.bits / 8 * 1.13  # scales cost at most an eighth
        assert rule.kv == ("bf16" if rule.bits > 8 else "fp8")


def test_families_have_distinct_colours_and_markers():
    families = glossary.load().families
    assert {"hbm_gpu", "transformer_asic", "sram", "compute_in_memory", "burned_in", "stacked_dram", "other"} == set(families)
    assert len({f.colour for f in families.values()}) == len({f.marker for f in families.values()}) == len(families)


def test_directions():
    assert glossary.better("usd_per_million_output_token") == "lower"
    assert glossary.better("interactivity_token_per_s") == "higher"
    assert glossary.better("mfu") == "higher"
    assert glossary.better("tp") == "none"


def test_unit_at_the_end_of_the_name_agrees_with_the_unit():
    ends = {
        "_token_per_s": "token/s",
        "_usd_per_s": "USD/s",
        "_flop_per_s": "FLOP/s",
        "_byte_per_s": "byte/s",
        "_mm2": "mm2",
        "_w": "W",
        "_byte": "byte",
        "_usd": "USD",
    }
    for name, entry in glossary.load().entries.items():
        end = next((e for e in ends if name.endswith(e)), None)
        if end and not ("_per_" in name and "_per_" not in end):  # macs_per_byte
            assert entry.unit == ends[end], name


def test_parts_of_names():
    assert glossary.find("layout.ep").name == "ep"
    assert glossary.find("format.kv").name == "format_kv"
    assert glossary.find("cost_usd_per_s.idle").name == "cost_usd_per_s"
    assert glossary.find("nonsense") is None


def test_explain_unknown_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'tpot_s'"):
        glossary.explain("tpots")
    assert "1 / TPOT" in glossary.explain("interactivity_token_per_s")
    assert "chip family" in glossary.explain("burned_in")
    assert "Idle" in glossary.explain("cost_usd_per_s.idle")


def test_all_problems_at_once():
    text = '[entry.a]\nlabel = "A"\nunit = "1"\ndefinition = "d"\nbetter = "up"\n[entry.b]\nlabel = "B"\nsybmol = "x"\n'
    with pytest.raises(InputError) as error:
        glossary.parse(text)
    assert len(error.value.problems) == 4  # better, sybmol, unit, definition
    assert any("did you mean 'symbol'" in p for p in error.value.problems)
