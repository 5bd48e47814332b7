"""What is a chip of the catalogue to the model? Fills every leaf of ``types.Chip`` and says where each filled one came from.

A datasheet gives rates, memory, links, power and a price. The rest (energies, leakage, server share, NRE ...) comes from
``chips/_defaults/FAMILY.toml`` over ``chips/_defaults/common.toml``, each with its interval, and is listed as filled.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.catalog.loader import Records
from dse.catalog.records import Quantity, Record
from dse.errors import InputError
from dse.types import Chip, Kernels, Link, PerFormat, Slacks, Store

if TYPE_CHECKING:
    from dse.catalog import Catalog

BYTE_BIT = 8
COMMON = "common"
MODEL_BOUND = "burned_in"
# defaults that are constants of the technology: name -> (kind, id, field); per node and per memory type in ``_shared``
SHARED = {
    "link_energy": ("technology", "link", "energy"),
    "scale_out_energy": ("technology", "link", "scale_out"),
    "scale_out_domain": ("technology", "link", "scale_out_chips"),
    "reference_slot_power": ("technology", "power", "slot"),
    "sram_energy_n7": ("memories", "sram", "energy"),
}
NOTHING = Store(capacity_byte=0.0, s_per_byte=0.0, j_per_byte=0.0)


@dataclass
class Source:
    """A chip record over its defaults; notes what the chip itself did not say."""

    record: Record
    defaults: dict[str, tuple[Quantity, str]]
    node: str
    filled: list[tuple[str, str]] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return name in self.record.values

    def own(self, name: str) -> float:
        return self.record.values[name].value

    def get(self, name: str, leaf: str | None = None) -> float:
        """The chip's value, or the default (then noted as filled)."""
        return self.own(name) if self.has(name) else self.default(name, leaf or name)

    def default(self, name: str, leaf: str) -> float:
        if name not in self.defaults:
            raise InputError(f"{self.record.file}: {name} — found nothing here nor in chips/_defaults, allowed a value in one of them")
        quantity, place = self.defaults[name]
        self.fill(leaf, place)
        return quantity.value

    def fill(self, leaf: str, origin: str) -> None:
        if (leaf, origin) not in self.filled:
            self.filled.append((leaf, origin))


def _shared(records: Records) -> dict[str, tuple[Quantity, str]]:
    """Defaults that the technology files already say, with the file of each."""
    places = dict(SHARED)
    for node in records["processes"]:
        places |= {f"node_energy.{node}": ("processes", node, "energy"), f"leakage.{node}": ("processes", node, "leakage")}
    found = {}
    for name, (kind, identity, key) in places.items():
        record = records[kind].get(identity)
        if record is not None and key in record.values:
            found[name] = (record.values[key], f"{record.file}: {key}")
    return found


def _memory(record: Record, records: Records) -> dict[str, tuple[Quantity, str]]:
    """Energy and price of the kind of memory that the chip names."""
    memory = records["memories"].get(str(record.meta.get("memory_type", "")).lower())
    pairs = {"memory_energy": "energy", "memory_cost": "price"}
    if memory is None:
        return {}
    return {name: (memory.values[key], f"{memory.file}: {key}") for name, key in pairs.items() if key in memory.values}


def family_defaults(record: Record, records: Records) -> Source:
    """The chip over its memory type, over its family's defaults, over the common ones, over the constants of the technology."""
    found = _shared(records)
    layers = [records["defaults"][name] for name in (COMMON, record.meta["family"]) if name in records["defaults"]]
    for layer in layers:
        found |= {name: (quantity, f"{layer.file}: {name}") for name, quantity in layer.values.items()}
    found |= _memory(record, records)
    assumed = str(next((layer.meta["node"] for layer in reversed(layers) if "node" in layer.meta), None))
    node = record.meta.get("node")
    source = Source(record, found, str(node) if f"node_energy.{node}" in found else assumed)
    if source.node != node:
        source.fill("node", f"{layers[-1].file}: node {assumed}" if layers else "chips/_defaults")
    return source


def build_chip(record: Record, catalog: Catalog) -> Chip:
    """Every leaf of ``types.Chip``, in SI, for a chip record.

    Raises:
        InputError: memory without bandwidth, or a value that neither the chip nor its defaults give.
    """
    return fill_chip(record, catalog)[0]


def fill_chip(record: Record, catalog: Catalog) -> tuple[Chip, list[tuple[str, str]]]:
    """The chip, and a list of (leaf of ``types.Chip``, where its value came from) for all that its own file does not say."""
    source = family_defaults(record, catalog.records)
    problems = [
        f"{record.file}: {bandwidth} — found none for its {capacity}, allowed a bandwidth"
        for capacity, bandwidth in (("memory_capacity", "memory_bandwidth"),)
        if source.has(capacity) and source.own(capacity) > 0 and not source.has(bandwidth)
    ]
    if problems:
        raise InputError(problems)
    peak = peaks(source)
    chip = Chip(
        peak_flop_per_s=peak,
        computes=computes(source),
        flop_j=flop_energies(source),
        static_w=static_power(source),
        kernels=kernels(source, catalog),
        slack=Slacks(reticle=0.0, beachfront=0.0, heat=0.0, package=0.0),
        **rates(source, peak),
        **stores(source),
        **links(source),
        **money(source),
    )
    return chip, source.filled


def peaks(source: Source) -> PerFormat:
    """Rates by format: a format that the chip lacks runs at the next wider one's rate (int8 at bf16's, never at fp8's)."""
    own = {f.name: source.own(f"peak_{f.name}") for f in dataclasses.fields(PerFormat) if source.has(f"peak_{f.name}")}
    if "bf16" not in own:
        narrow = next(name for name in ("fp8", "int8", "fp4") if name in own)
        halvings = 2 if narrow == "fp4" else 1
        own["bf16"] = own[narrow] * source.default("narrow_ratio", "peak_flop_per_s.bf16") ** halvings
    for name, wider in (("fp8", "bf16"), ("fp4", "fp8"), ("int8", "bf16")):
        if name not in own:
            own[name] = own[wider]
            source.fill(f"peak_flop_per_s.{name}", f"not computed: the rate of {wider}")
    if "fp32" not in own:
        own["fp32"] = np.minimum(source.own("vector_fp32"), own["bf16"]) if source.has("vector_fp32") else _vector(source, own["bf16"])
        source.fill("peak_flop_per_s.fp32", "rate of the vector units")
    return PerFormat(**own)


def computes(source: Source) -> PerFormat:
    """1 for a format whose rate the chip states; fp32 and bf16 can always be computed somehow."""
    return PerFormat(fp32=1.0, bf16=1.0, **{name: float(source.has(f"peak_{name}")) for name in ("fp8", "fp4", "int8")})


def _vector(source: Source, bf16: float) -> float:
    return bf16 * source.default("vector_share", "vector_flop_per_s")


def rates(source: Source, peak: PerFormat) -> dict[str, Any]:
    vector = source.own("vector_fp32") if source.has("vector_fp32") else _vector(source, peak.bf16)
    if source.has("exp_rate"):
        exponentials = source.own("exp_rate")
    elif source.has("cores") and source.has("clock"):
        exponentials = source.own("cores") * source.own("clock") * source.default("exp_per_core", "exp_per_s")
    else:
        exponentials = vector * source.default("exp_per_vector_flop", "exp_per_s")
    return {"vector_flop_per_s": vector, "exp_per_s": exponentials}


def flop_energies(source: Source) -> PerFormat:
    """Joule per FLOP by format, at the chip's node."""
    if source.has("flop_energy"):
        bf16 = source.own("flop_energy")
    else:
        at_n7 = source.get("flop_energy_n7", "flop_j")
        bf16 = at_n7 * source.default(f"node_energy.{source.node}", "flop_j")
    ratio = {name: source.default(f"energy_ratio_{name}", "flop_j") for name in ("fp32", "fp8", "fp4", "int8")}
    return PerFormat(bf16=bf16, **{name: bf16 * factor for name, factor in ratio.items()})


def static_power(source: Source) -> float:
    if source.has("idle_power"):
        return source.own("idle_power")
    if source.has("die_area"):
        leakage = source.default(f"leakage.{source.node}", "static_w")
        return np.minimum(leakage * source.own("die_area") * _dies(source), source.own("tdp"))
    return source.own("tdp") * source.default("static_share", "static_w")


def _dies(source: Source) -> float:
    return source.own("dies") if source.has("dies") else 1.0


def stores(source: Source) -> dict[str, Any]:
    """Off-chip memory, SRAM (its capacity counts only where the model lives in it) and ROM."""
    memory = sram = rom = NOTHING
    if source.has("memory_capacity") and source.own("memory_capacity") > 0:
        energy = source.get("memory_energy", "memory.j_per_byte")
        memory = Store(capacity_byte=source.own("memory_capacity"), s_per_byte=1.0 / source.own("memory_bandwidth"), j_per_byte=energy)
    if source.has("sram_capacity"):
        holds = source.record.meta.get("sram_role", "cache") == "model"
        energy = source.default("sram_energy_n7", "sram.j_per_byte") * source.default(f"node_energy.{source.node}", "sram.j_per_byte")
        slowness = 1.0 / source.own("sram_bandwidth") if source.has("sram_bandwidth") else 0.0
        sram = Store(capacity_byte=source.own("sram_capacity") if holds else 0.0, s_per_byte=slowness, j_per_byte=energy)
    if source.has("rom_capacity"):
        rom = dataclasses.replace(NOTHING, capacity_byte=source.own("rom_capacity"))
    elif source.has("rom_parameters"):
        bits = source.default("rom_bit", "weight_store.capacity_byte")
        rom = dataclasses.replace(NOTHING, capacity_byte=source.own("rom_parameters") * bits / BYTE_BIT)
    return {"memory": memory, "sram": sram, "weight_store": rom}


def links(source: Source) -> dict[str, Any]:
    up = Link(
        chips=source.get("link_domain", "scale_up.chips"),
        s_per_byte=1.0 / source.get("link_bandwidth", "scale_up.s_per_byte"),
        j_per_byte=source.default("link_energy", "scale_up.j_per_byte"),
        dimensions=source.own("link_dimensions") if source.has("link_dimensions") else 0.0,
        open_ends=source.own("link_open_ends") if source.has("link_open_ends") else 0.0,
    )
    out = Link(
        chips=source.default("scale_out_domain", "scale_out.chips"),
        s_per_byte=1.0 / source.get("scale_out_bandwidth", "scale_out.s_per_byte"),
        j_per_byte=source.default("scale_out_energy", "scale_out.j_per_byte"),
    )
    return {"scale_up": up, "scale_out": out}


def money(source: Source) -> dict[str, Any]:
    tdp = source.own("tdp")
    return {
        "tdp_w": tdp,
        "host_share": np.minimum(1.0, tdp / source.default("reference_slot_power", "host_share")),
        "liquid_cooled": 1.0 if source.record.meta.get("cooling") == "liquid" else 0.0,
        "unit_cost_usd": unit_cost(source),
        "nre_usd": source.get("nre", "nre_usd"),
        "nre_model_usd": source.get("nre_model", "nre_model_usd"),
        "wafers": wafers(source),
        "system_usd": source.own("system_extra_cost") if source.has("system_extra_cost") else 0.0,
        "street_usd": source.own("price") if source.has("price") else 0.0,
        "has_street": 1.0 if source.has("price") else 0.0,
        "rent_usd_per_s": source.own("rent") if source.has("rent") else 0.0,
        "has_rent": 1.0 if source.has("rent") else 0.0,
        "model_bound": 1.0 if source.record.meta["family"] == MODEL_BOUND else 0.0,
    }


def unit_cost(source: Source) -> float:
    """Bill of materials; else street price over the vendor's multiple; else silicon, memory and package by area and capacity."""
    if source.has("bom"):
        return source.own("bom")
    if source.has("price"):
        return source.own("price") / source.default("vendor_multiple", "unit_cost_usd")
    memory = source.own("memory_physical" if source.has("memory_physical") else "memory_capacity") if source.has("memory_capacity") else 0.0
    return (
        source.own("die_area") * _dies(source) * source.default("silicon_cost", "unit_cost_usd")
        + memory * source.default("memory_cost", "unit_cost_usd")
        + source.default("package_cost", "unit_cost_usd")
    )


def wafers(source: Source) -> float:
    """Wafers started for one package: stated, by die area, or by the silicon that the unit cost could pay for."""
    if source.has("wafers"):
        return source.own("wafers")
    good = source.default("good_wafer_area", "wafers")
    if source.has("die_area"):
        return source.own("die_area") * _dies(source) / good
    return source.default("silicon_area", "wafers") / good


def kernels(source: Source, catalog: Catalog) -> Kernels:
    """Constants of the chip, with the time of a layer replaced by its own where that is published."""
    found = catalog.constants[catalog.constants_of(source.record.id)[0]]
    if not source.has("layer_time"):
        return found
    layer = source.own("layer_time")
    token: Any = found.system.layer_token_s
    if source.has("layer_token_time"):
        token = source.own("layer_token_time")
    elif source.record.meta["family"] == MODEL_BOUND:
        token = layer
    return dataclasses.replace(found, system=dataclasses.replace(found.system, layer_s=layer, layer_token_s=token))
