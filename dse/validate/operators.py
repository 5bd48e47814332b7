"""What does the model predict for operator rows? Cases, constants and chips brought together, a thousand rows in one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from dse.catalog import Record
from dse.formats import named_format
from dse.types import AllReduce, AttentionDecode, AttentionPrefill, Collective, Gemm, Kernels, Moe
from dse.validate.predict import Elementwise, Exchange, Levels, Machine, seconds, stacked
from dse.validate.resolve import Resolved
from dse.validate.shapes import Case

RECORDS: dict[str, type] = {
    "gemm": Gemm, "moe": Moe, "decode": AttentionDecode, "decode_fp8": AttentionDecode, "mla_decode": AttentionDecode,
    "prefill": AttentionPrefill, "prefill_fp8": AttentionPrefill, "mla_prefill": AttentionPrefill, "all_reduce": AllReduce,
    "all_gather": Collective, "dispatch": Collective, "combine": Collective, "scale_out": Collective, "point_to_point": Collective,
    "elementwise": Elementwise,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A case on a chip; ``row`` is the index of the measured row that it belongs to."""

    row: int
    case: Case
    on: Resolved


def variant_of(part: str, variant: str, record: Record) -> Any | None:
    """Constants of one implementation (``gemm.fp8.vllm.*``) where the file has them, else None."""
    cls = RECORDS[part.split(".")[0]]
    names = [f"{part}.{variant}.{f.name}" for f in fields(cls)]
    if not variant or any(n not in record.values for n in names):
        return None
    return cls(**{f.name: record.values[n].value for f, n in zip(fields(cls), names, strict=True)})


def part_of(part: str, variant: str, on: Resolved) -> Any:
    """Constants of a part of ``Kernels``: those of the implementation, else the chip's own."""
    own = variant_of(part, variant, on.constants)
    if own is not None:
        return own
    k: Kernels = on.chip.kernels
    if part == "elementwise":
        return Elementwise(floor_s=k.system.small_kernel_s, efficiency=k.elementwise_efficiency)
    node: Any = k
    for name in part.split("."):
        node = getattr(node, name)
    return node


def prequantised(kernel: Gemm, on: Resolved) -> Gemm:
    """The kernel without the pass that quantises activations, and with the floor of one that has none."""
    plain = on.chip.kernels.gemm.bf16
    with_pass = jnp.clip(kernel.quantise_pass, 0.0, 1.0)
    floor = kernel.floor_s + with_pass * (jnp.minimum(kernel.floor_s, plain.floor_s) - kernel.floor_s)
    return replace(kernel, floor_s=float(floor), quantise_pass=0.0)


def constants_of(case: Case, on: Resolved) -> Any:
    """The record of constants that the case's equation takes."""
    own = part_of(case.constants, case.variant, on)
    far = part_of("scale_out", case.variant, on)
    if case.equation == "gemm" and case.sizes.get("prequantised"):
        return prequantised(own, on)
    if case.equation == "all_reduce":
        return Levels(inner=own, outer=far)
    if case.equation in ("expert_exchange", "send"):
        return Exchange(near=own, far=far)
    return own


def machine_of(case: Case, on: Resolved) -> Machine:
    """The chip's numbers in the arithmetic of the case."""
    c = on.chip
    memory = c.memory.s_per_byte if float(c.memory.capacity_byte) > 0 else c.sram.s_per_byte
    links = {"up_s_per_byte": c.scale_up.s_per_byte, "out_s_per_byte": c.scale_out.s_per_byte}
    return Machine(peak_flop_per_s=on.peak(case.format), s_per_byte=memory, exp_per_s=c.exp_per_s, blend=c.kernels.blend, **links)


def with_bytes(case: Case) -> Case:
    """The case with the bytes of a weight, which follow from its format."""
    if case.equation not in ("gemm", "experts"):
        return case
    sizes = {k: v for k, v in case.sizes.items() if k not in ("weights", "prequantised")}
    sizes["weight_byte"] = named_format(case.format).weight_byte * case.sizes.get("weights", 1.0)
    return replace(case, sizes=sizes)


def flat(case: Case) -> list[Case]:
    """A case and those that follow it in the same measurement."""
    return [case, *(inner for more in case.also for inner in flat(more))]


def predict_seconds(jobs: Sequence[Job], count: int) -> np.ndarray:
    """Predicted time of each of ``count`` rows [s]; nan where no job belongs to a row."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        for case in flat(job.case):
            groups[case.equation].append(Job(job.row, case, job.on))
    total = np.zeros(count)
    hit = np.zeros(count, dtype=bool)
    cache: dict[tuple[Any, ...], Any] = {}
    for equation, members in groups.items():
        constants, machines = [], []
        for j in members:
            key = (j.case.constants, j.case.variant, j.case.sizes.get("prequantised"), j.case.equation, id(j.on))
            cache.setdefault(key, constants_of(j.case, j.on))
            cache.setdefault((j.case.format, id(j.on)), machine_of(j.case, j.on))
            constants.append(cache[key])
            machines.append(cache[(j.case.format, id(j.on))])
        times = seconds(equation, [with_bytes(j.case) for j in members], stacked(constants), stacked(machines))
        rows = np.array([j.row for j in members])
        np.add.at(total, rows, np.asarray(times))
        hit[rows] = True
    return np.where(hit, total, np.nan)
