"""One table says what each spelling of a precision means; every shipped row is in it, and what is not is refused."""

from __future__ import annotations

import pytest

from dse.glossary import load
from dse.paths import data_dir
from dse.types import PerKernel
from dse.validate.precision import spelled, spellings
from dse.validate.rows import every_row, read_folder
from dse.validate.runs import format_of
from dse.validate.shapes import Unpredictable, kernel_class


@pytest.mark.parametrize("column", ["weights", "cache", "values"])
def test_every_spelling_has_a_reason_and_means_something_known(column):
    formats, kernels = set(load().formats), set(PerKernel.__dataclass_fields__)
    for text, found in spellings(column).items():
        assert len(found.reason) > 10, text
        for name in (found.format, *found.models.values()):
            assert not name or set(name.split("/")) <= formats, text
        assert not found.kernel or found.kernel in kernels, text
        assert found.byte > 0, text


def test_every_shipped_spelling_is_in_the_table():
    tables, _ = read_folder(data_dir("hw_catalog") / "measurements")
    for _, row in every_row(tables):
        assert spelled("weights", row.get("precision_weights")) is not None, row["precision_weights"]
        assert spelled("cache", row.get("precision_kv")) is not None, row["precision_kv"]


def test_the_table_decides_and_the_unknown_is_refused():
    assert kernel_class({"precision_weights": "FP8 Blockscale"}) == "fp8_block"
    assert format_of({"precision_weights": "fp4", "precision_kv": "fp8"}, "gpt-oss-120b") == "mxfp4/fp8"
    assert format_of({"precision_weights": "fp4"}, "deepseek-r1") == "nvfp4"
    assert format_of({"precision_weights": "not stated, perhaps fp8"}, "deepseek-r1") is None
    for read in (lambda row: kernel_class(row), lambda row: format_of(row, "deepseek-r1")):
        with pytest.raises(Unpredictable, match="int3"):
            read({"precision_weights": "int3"})


def test_bytes_of_sent_values_are_those_of_the_formats():
    bytes_of = load().formats
    for text, found in spellings("values").items():
        name = {"bfloat16": "bf16"}.get(text, text)
        assert found.byte == pytest.approx(bytes_of[name].weight_byte, rel=0.02), text
