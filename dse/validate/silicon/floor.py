"""How large is a die, block by block, given what its maker published? GPU, spatial and base dies from global constants.

Every function returns mm2 by block; the blocks sum to the die. Constants belong to a process, a vendor or a link generation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dse.catalog import Catalog, Record
from dse.equations import silicon
from dse.types import Process, Technology

GPU_CORE_BLOCKS = ("tensor", "vector", "control", "registers", "L1", "graphics")
REFERENCE_NODE = "n5"  # of the graphics constant


@dataclass(frozen=True)
class Constants:
    """Processes, technology and the constants of vendors, in SI."""

    processes: dict[str, Process]
    technology: Technology
    families: Any
    own: dict[str, float]  # hw_catalog/rebuild/constants.toml

    def process(self, record: Record, node: str = "node") -> Process:
        """Process of a die; a foundry whose cells differ from the reference of that node scales it."""
        base = self.processes[record.meta[node]]
        name = str(record.meta.get("foundry", "")).lower()
        return replace(
            base,
            density_transistor_per_mm2=base.density_transistor_per_mm2 * self.own.get(f"{name}.density", 1.0),
            sram_byte_per_mm2=base.sram_byte_per_mm2 * self.own.get(f"{name}.sram", 1.0),
        )


def constants(catalog: Catalog) -> Constants:
    """The constants of a catalogue."""
    own = {name: q.value for name, q in catalog.records["rebuild"]["constants"].values.items()}
    return Constants(dict(catalog.processes), catalog.technology, catalog.families, own)


def values_of(record: Record) -> dict[str, float]:
    """Design variables in SI."""
    return {name: q.value for name, q in record.values.items()}


def gpu_die(record: Record, k: Constants, mac_transistor: float | None = None) -> dict[str, float]:
    """Blocks of a GPU die (or of a compute chiplet, which carries no memory, links and host interface), mm2.

    Args: design variables; constants; transistors of one multiply-add instead of those of the catalogue, for a fit.
    """
    v, process, t = values_of(record), k.process(record), k.technology
    vendor, density = str(record.meta["vendor"]).lower(), process.density_transistor_per_mm2
    family = k.families["hbm_gpu"]
    mac = family.mac_transistor if mac_transistor is None else mac_transistor
    mac *= family.special["large_mac"] if record.meta["datapath"] == "large" and vendor == "nvidia" else 1.0

    def logic(transistors: float) -> float:
        return float(silicon.logic_area_mm2(transistors, density, k.own[f"{vendor}.utilisation"]))

    vector = v["fp32"] * t.logic.fp32_transistor + v["int32"] * t.logic.int32_transistor + (v["fp64"] + v["sfu"]) * t.logic.fp64_transistor
    store = v["cores"] / process.sram_byte_per_mm2
    ports = v.get("cache_port", v["cores"] * family.special["port_per_core"])
    stack = v["sites"] > 0
    blocks = {
        "tensor": logic(v["cores"] * v["mac16"] * mac),
        "vector": logic(v["cores"] * vector),
        "control": logic(v["cores"] * k.own[f"{vendor}.lanes"] * k.own[f"{vendor}.lane_control"]),
        "registers": store * (v["register"] + v.get("tensor_memory", 0.0)) / t.sram.register_density,
        "L1": store * v["l1"] / t.sram.l1_density,
        "graphics": _graphics(record, k, density),
        "cache": silicon.cache_area_mm2(v["cache"], process.sram_byte_per_mm2, t.sram.cache_overhead)
        + silicon.cache_port_area_mm2(ports, t.sram.cache_port_mm2_per_byte, t.logic.reference_transistor_per_mm2, density),
        "crossbar": silicon.logic_area_mm2(v["cores"] * k.own[f"{vendor}.crossbar"], density, 1.0),
        "memory": _memory(record, v["sites"], k, density),
        "links": _links(str(record.meta.get("link_generation", "")), v["link"], k, density),
        "dies": v.get("die_link", 0.0) * t.link.die_area_mm2_s_per_byte,
        "host": _host(record, k, density) if stack else 0.0,
        "other": silicon.scaled_area_mm2(t.logic.other_mm2, t.logic.reference_transistor_per_mm2, density) if stack else 0.0,
    }
    return {name: float(area) for name, area in blocks.items()}


def _graphics(record: Record, k: Constants, density: float) -> float:
    if record.meta.get("graphics") != "yes":
        return 0.0
    at = k.processes[REFERENCE_NODE].density_transistor_per_mm2
    cores = record.values["cores"].value
    return float(silicon.scaled_area_mm2(cores * k.own["graphics_core"], at, density))


def _memory(record: Record, sites: float, k: Constants, density: float) -> float:
    site = k.technology.memories.get(str(record.meta.get("memory", "")))
    return 0.0 if site is None or not sites else float(silicon.phy_area_mm2(sites, site.phy_mm2, site.controller_transistor, density))


def _links(generation: str, rate: float, k: Constants, density: float) -> float:
    if not generation:
        return 0.0
    return float(silicon.phy_area_mm2(rate, k.own[f"{generation}.phy"], k.own[f"{generation}.controller"], density))


def _host(record: Record, k: Constants, density: float) -> float:
    """Sixteen lanes to the host, of the generation that the maker names (5 where none is named)."""
    phy = k.own.get(f"{record.meta.get('host', '')}.phy", k.technology.link.host_phy_mm2)
    return float(silicon.phy_area_mm2(1.0, phy, k.technology.link.host_controller_transistor, density))


def spatial_die(record: Record, k: Constants, overhead: bool = True) -> dict[str, float]:
    """Blocks of a die of multipliers beside banked SRAM (systolic arrays, spatial machines, digital compute in memory), mm2."""
    v, process, t = values_of(record), k.process(record), k.technology
    density, mac16 = process.density_transistor_per_mm2, k.families["sram"].mac_transistor
    halved = k.own["halved_format"] ** v["formats"]
    physical = 1 + v.get("spare", 0.0)  # cores on the die over cores that work
    multiply = physical * (v["mac16"] * mac16 + v["mac8"] * mac16 / 2) * halved
    vector = v["alus"] * t.logic.alu_transistor + v.get("alus16", 0.0) * k.own["fp16_alu"]
    control = physical * (vector + v["cores"] * v.get("networks", 1.0) * t.logic.spatial_core_transistor)
    dense = silicon.sram_density_byte_per_mm2(process.sram_byte_per_mm2, v["bank"], t.sram.periphery_byte)
    phy = v.get("link_generation_mm2", k.own["nvlink3.phy"])
    blocks = {
        "multipliers": silicon.logic_area_mm2(multiply, density, t.logic.utilisation),
        "vector and control": silicon.logic_area_mm2(control, density, t.logic.utilisation),
        "SRAM": physical * v["sram"] * v["ecc"] / dense,
        "memory": _memory(record, v["sites"], k, density),
        "links": silicon.phy_area_mm2(v["link"], phy, k.own["nvlink3.controller"], density),
    }
    found = {name: float(area) for name, area in blocks.items()}
    share = k.own["spatial_overhead"] if overhead else 0.0
    return {**found, "outside of the blocks": sum(found.values()) * share / (1 - share)}


def base_die(record: Record, k: Constants) -> dict[str, float]:
    """Three lower bounds of a die on which compute is stacked: what it holds, what lies on it, and how long its edge must be, mm2."""
    v, process, t = values_of(record), k.process(record, "base_node"), k.technology
    density = process.density_transistor_per_mm2
    content = silicon.cache_area_mm2(v["base.cache"], process.sram_byte_per_mm2, t.sram.cache_overhead) + silicon.cache_port_area_mm2(
        v["base.cache_port"], t.sram.cache_port_mm2_per_byte, t.logic.reference_transistor_per_mm2, density
    )
    edge = _memory(record, v["base.sites"], k, density) + _links("nvlink3", v["base.link"], k, density)
    edge += v["base.die_link"] * t.link.die_area_mm2_s_per_byte
    edge += float(silicon.phy_area_mm2(1 / v["base.dies"], t.link.host_phy_mm2, t.link.host_controller_transistor, density))
    above = dies_above(record) * sum(gpu_die(record, k).values())
    return {"content": float(content) + edge, "compute above": above, "compute above, interfaces beside it": above + edge}


def dies_above(record: Record) -> float:
    """Compute dies on one die below."""
    return record.values["dies"].value / record.values["base.dies"].value


def burned_die(record: Record, k: Constants) -> dict[str, float]:
    """Area of all dies of one model whose weights are wiring, mm2: one density, whole die."""
    v = values_of(record)
    return {"weights with arithmetic": v["weights"] * v["bits"] / k.technology.rom.byte_per_mm2}
