"""Which kernel and engine constants belong to a chip? Finds the file and builds ``types.Kernels`` from its leaves.

A file is chosen by the chip's own ``constants``, by chip id, then generation, vendor, family. A leaf that it lacks is taken from
its ``base``, then from its family's file, then from that of ``hbm_gpu``, then from the default in ``types``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dse.catalog.records import Record
from dse.errors import InputError, closest
from dse.types import AllReduce, AttentionDecode, AttentionPrefill, Collective, Gemm, Kernels, Moe, PerKernel, System

ROOT_FAMILY = "hbm_gpu"
_PARTS: dict[str, type] = {
    "decode": AttentionDecode,
    "decode_fp8": AttentionDecode,
    "mla_decode": AttentionDecode,
    "prefill": AttentionPrefill,
    "prefill_fp8": AttentionPrefill,
    "mla_prefill": AttentionPrefill,
    "all_reduce": AllReduce,
    "all_gather": Collective,
    "dispatch": Collective,
    "combine": Collective,
    "scale_out": Collective,
    "point_to_point": Collective,
    "system": System,
}
_PER_KERNEL: dict[str, type] = {"gemm": Gemm, "moe": Moe}


def find_constants(chip: Record, constants: Mapping[str, Record], family: str) -> tuple[str, str]:
    """Id of the constants of a chip and how they were found: "chip", "generation", "vendor" or "family".

    Raises:
        InputError: the chip names constants that do not exist, or there are none for its family.
    """
    named = chip.meta.get("constants")
    if named is not None:
        if named not in constants:
            raise InputError(f"{chip.file}: constants — found '{named}', allowed an id of constants/{closest(named, constants)}")
        return named, "chip"
    for identity, record in constants.items():
        if chip.id in record.meta.get("applies_to_chips", []):
            return identity, "chip"
    wanted = {"generation": chip.meta.get("generation"), "vendor": chip.meta.get("vendor"), "family": family}
    for how, word in wanted.items():
        for identity, record in constants.items():
            serves = record.meta.get("family", ROOT_FAMILY) == family
            serves &= how != "family" or not record.meta.get("applies_to_chips")  # the file of one chip does not stand for its family
            if word and serves and str(record.meta.get(how, "")).lower() == word.lower():
                return identity, how
    raise InputError(f"{chip.file}: family — found no constants of family '{family}', allowed a file of constants/ that names it")


def _chain(record: Record, constants: Mapping[str, Record]) -> Iterator[Record]:
    seen: set[str] = set()
    queue = [record.id, record.meta.get("base"), record.meta.get("family"), ROOT_FAMILY]
    while queue:
        identity = queue.pop(0)
        if identity and identity not in seen and (identity in constants or identity == record.id):
            seen.add(identity)
            found = record if identity == record.id else constants[identity]
            queue.insert(0, found.meta.get("base"))
            yield found


def build_kernels(record: Record, constants: Mapping[str, Record] | None = None) -> Kernels:
    """``types.Kernels`` of a constants record; ``constants`` are the others, from which missing leaves are taken.

    Raises:
        InputError: leaves that no file of the chain has.
    """
    chain = list(_chain(record, constants or {}))
    missing: list[str] = []

    def leaf(path: str, default: Any) -> float | None:
        for found in chain:
            if path in found.values:
                return found.values[path].value
        if default is not dataclasses.MISSING:
            return default if default is None else float(default)
        missing.append(f"{record.file}: {path} — found nothing, allowed a number here or in {' or '.join(r.id for r in chain)}")
        return 0.0

    def part(prefix: str, cls: Any) -> Any:
        return cls(**{f.name: leaf(f"{prefix}.{f.name}", f.default) for f in dataclasses.fields(cls)})

    parts: dict[str, Any] = {name: part(name, cls) for name, cls in _PARTS.items()}
    for name, cls in _PER_KERNEL.items():
        parts[name] = PerKernel(**{f.name: part(f"{name}.{f.name}", cls) for f in dataclasses.fields(PerKernel)})
    parts.update({f.name: leaf(f.name, f.default) for f in dataclasses.fields(Kernels) if f.name not in parts})
    if missing:
        raise InputError(missing)
    return Kernels(**parts)
