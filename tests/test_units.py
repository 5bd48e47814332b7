"""Unit strings: values against hand arithmetic, errors for what is no unit, texts for people."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import InputError
from dse.units import currency_year, dimension, format_si, to_si


@pytest.mark.parametrize(
    ("value", "unit", "si", "name"),
    [
        (3.35, "TB/s", 3.35e12, "byte/s"),
        (400, "Gbit/s", 50e9, "byte/s"),
        (80, "GB", 80e9, "byte"),
        (80, "GiB", 80 * 2**30, "byte"),
        (989, "TFLOP/s", 989e12, "FLOP/s"),
        (2400, "TOP/s", 2.4e15, "FLOP/s"),
        (5.5, "pJ/bit", 44e-12, "J/byte"),
        (0.7, "pJ/FLOP", 0.7e-12, "J/FLOP"),
        (1.755, "GHz", 1.755e9, "1/s"),
        (0.10, "1/cm2", 1e-3, "1/mm2"),
        (814, "mm2", 814.0, "mm2"),
        (8.14, "cm2", 814.0, "mm2"),
        (11, "mm", 0.011, "m"),
        (25, "Mbit/mm2", 3.125e6, "byte/mm2"),
        (0.08, "USD_2026/kWh", 0.08 / 3.6e6, "USD/J"),
        (12.5, "MUSD_2026/MW", 12.5, "USD/W"),
        (1.3, "USD_2026/hour", 1.3 / 3600, "USD/s"),
        (16000, "USD_2020/wafer", 16000.0, "USD"),
        (96.3, "MTr/mm2", 96.3e6, "transistor/mm2"),
        (12, "%", 0.12, "1"),
        (0.5, "1", 0.5, "1"),
        (41, "us", 41e-6, "s"),
    ],
)
def test_units_against_hand_arithmetic(value, unit, si, name):
    assert to_si(value, unit) == pytest.approx(si, rel=1e-12)
    assert dimension(unit) == name


def test_decimal_and_binary_bytes_differ():
    assert to_si(1, "GiB") / to_si(1, "GB") == pytest.approx(1.073741824)
    assert to_si(8, "Gb") == to_si(1, "GB")  # b is bit, B is byte


@pytest.mark.parametrize("unit", ["TBs", "GBps", "flops/s", "hp", "TB//s", "3 TB", "watt-ish", "€"])
def test_unknown_unit_names_what_is_allowed(unit):
    with pytest.raises(InputError) as error:
        to_si(1, unit)
    assert f"'{unit}'" in str(error.value) and "allowed" in str(error.value)


def test_a_typo_is_answered_with_the_closest_unit():
    with pytest.raises(InputError, match="did you mean 'TB/s'"):
        dimension("TBs")


def test_the_year_of_a_currency_is_kept_apart():
    assert currency_year("MUSD_2025") == 2025
    assert currency_year("USD/hour") is None
    assert to_si(1, "USD_2020") == to_si(1, "USD_2026") == 1.0


@given(st.floats(1e-6, 1e9), st.sampled_from(["TB/s", "GiB", "pJ/bit", "us", "USD_2026/hour", "MTr/mm2", "kW"]))
def test_conversion_is_linear(value, unit):
    assert to_si(2 * value, unit) == pytest.approx(2 * to_si(value, unit), rel=1e-12)
    assert to_si(to_si(value, unit), dimension(unit)) == pytest.approx(to_si(value, unit), rel=1e-12)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.35e12, "byte/s", "3.35 TB/s"),
        (2.3e8, "byte", "230 MB"),
        (1.979e15, "FLOP/s", "1.979 PFLOP/s"),
        (4.1e-5, "s", "41 us"),
        (1.2e9, "s", "1.2e+09 s"),
        (4.9e-13, "J/FLOP", "490 fJ/FLOP"),
        (0.0, "W", "0 W"),
        (45800.0, "USD", "45,800 USD"),
        (8.0, "1", "8"),
        (-3e9, "byte", "-3 GB"),
        (math.inf, "s", "inf s"),
    ],
)
def test_texts_for_people(value, unit, text):
    assert format_si(value, unit) == text
