"""Which numbers are stored and multiplied in which format: by name, and as weights of a choice."""

from __future__ import annotations

import dataclasses
from typing import Any

from dse import glossary
from dse.errors import InputError, closest
from dse.types.base import Number, pytree


@pytree()
class PerFormat:
    """One number for each arithmetic format. A choice among them is a one-hot ``PerFormat``."""

    fp32: Number
    bf16: Number
    fp8: Number
    fp4: Number
    int8: Number


@pytree()
class PerKernel:
    """One value (a number or a record) for each kernel class, that is, weight format as the kernels see it."""

    bf16: Any
    fp8: Any
    fp8_block: Any
    int8: Any
    nvfp4: Any
    mxfp4: Any
    int4: Any


@pytree()
class Format:
    """Which numbers are stored and multiplied in which format."""

    weight_byte: Number  # byte per weight in the layers, scales included
    head_byte: Number  # byte per weight of embedding and output head
    kv_byte: Number  # byte per cached value
    activation_byte: Number  # byte per activation value entering a GEMM
    kernel: PerKernel  # one-hot: which kernel class multiplies the weights
    compute: PerFormat  # one-hot: arithmetic format of the weight GEMMs
    attention: PerFormat  # one-hot: arithmetic format of attention scores and values
    kv_fp8: Number  # 1 if the cache is 8 bit, else 0 (selects the attention constants)
    weight_only: Number  # 1 if the weights are widened before they are multiplied (any chip can compute it)


BF16_BYTE = 2.0


def _one_hot(cls: type, name: str) -> Any:
    return cls(**{f.name: float(f.name == name) for f in dataclasses.fields(cls)})


def named_format(weights: str, kv: str | None = None) -> Format:
    """The ``Format`` of a weight format's name; cache, arithmetic and activations follow the glossary's table.

    Args:
        weights: One of the glossary's formats (``"fp8"``). kv: Format of the cache, or None for the table's default.

    Raises:
        InputError: unknown name.

    >>> named_format("fp8").weight_byte, named_format("fp8", "bf16").kv_byte
    (1.0, 2.0)
    """
    table = glossary.load().formats
    problems = [f"format — {name!r} is not a format; one of {', '.join(table)}{closest(name, table)}"
                for name in (weights, kv) if name is not None and name not in table]  # fmt: skip
    if problems:
        raise InputError(problems)
    rule, cache = table[weights], table[kv or table[weights].kv]
    weight_only = rule.compute_gpu == "bf16" and rule.compute != "bf16"
    widest = max(rule.weight_byte, BF16_BYTE)
    return Format(
        weight_byte=rule.weight_byte,
        head_byte=rule.weight_byte if weight_only else widest,  # quantised checkpoints leave embedding and head in bf16
        kv_byte=cache.weight_byte,
        activation_byte=widest,
        kernel=_one_hot(PerKernel, rule.kernel),
        compute=_one_hot(PerFormat, rule.compute_gpu),
        attention=_one_hot(PerFormat, "fp32" if rule.weight_byte > BF16_BYTE else "bf16"),
        kv_fp8=float(cache.weight_byte < BF16_BYTE),
        weight_only=float(weight_only),
    )
