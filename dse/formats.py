"""In which format does a chip compute a model? Choices among formats as differentiable sums, and the default format."""

from __future__ import annotations

from dataclasses import fields, replace

import jax

from dse.types import Chip, Format, Number, PerFormat, PerKernel, named_format


def pick(choice: PerFormat | PerKernel, values):
    """Value (number or record) of the chosen format: a sum weighted by the one-hot, so that it stays differentiable.

    >>> pick(PerFormat(fp32=0.0, bf16=1.0, fp8=0.0, fp4=0.0, int8=0.0), PerFormat(fp32=1.0, bf16=2.0, fp8=3.0, fp4=4.0, int8=5.0))
    2.0
    """
    weights = [getattr(choice, f.name) for f in fields(choice)]
    options = [getattr(values, f.name) for f in fields(values)]
    return jax.tree.map(lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)), *options)


def blend(share: Number, a: Format, b: Format) -> Format:
    """``a`` where ``share`` is 1 and ``b`` where it is 0."""
    return jax.tree.map(lambda x, y: share * x + (1.0 - share) * y, a, b)


def default_format(chip: Chip, native: Format) -> Format:
    """The format of release, or bf16 where the chip lacks its arithmetic (4-bit weights are widened inside the kernel instead).

    Weights that are burned in take 4 bit, as the designs that are known.
    """
    four_bit = native.weight_only + native.compute.fp4
    computed = four_bit + (1.0 - four_bit) * pick(native.compute, chip.computes)
    stored = blend(computed, native, named_format("bf16"))
    return blend(chip.model_bound, named_format("int4"), stored)


def computed_in(chip: Chip, fmt: Format) -> Format:
    """The same stored formats, with the arithmetic widened to bf16 (fp32 for what is asked in fp32) where the chip lacks it."""
    has, want = chip.computes, fmt.compute
    kept = PerFormat(fp32=want.fp32, bf16=0.0 * want.bf16, fp8=want.fp8 * has.fp8, fp4=want.fp4 * has.fp4, int8=want.int8 * has.int8)
    rest = 1.0 - kept.fp32 - kept.fp8 - kept.fp4 - kept.int8
    return replace(fmt, compute=replace(kept, bf16=rest))
