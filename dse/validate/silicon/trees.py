"""Where do area, power and cost of a chip come from? Of a real one by its design variables, of a searched one by its decisions, of any
other by its datasheet: each part with its share, its 90 % interval, and the constants with their sources that set it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dse.catalog import Catalog, Record
from dse.catalog.silicon import build_family, build_range
from dse.chips import FAMILIES as BUILDERS
from dse.chips.common import MEMORIES, NODES
from dse.equations import fabrication, power, silicon
from dse.errors import InputError, closest
from dse.evaluate import as_floats
from dse.space import space_of
from dse.types import FamilyConstants, MemoryTechnology, Process
from dse.validate.silicon import moved
from dse.validate.silicon.chips import rebuild
from dse.validate.silicon.floor import constants
from dse.validate.silicon.moved import WHOLE, Part, Trees

__all__ = ["WHOLE", "Part", "datasheet_text", "design_of", "design_text", "design_trees", "text", "trees"]

FAMILIES = {"gpu": "hbm_gpu", "spatial": "sram", "burned_in": "burned_in"}
TECHNOLOGY = ("logic", "link", "packaging", "power")
ON_DIE = ("sram", "rom", "stacked-dram")
TITLES = {"area": "area of one die, mm2", "power": "power at its limit, W", "cost": "cost of one package, USD"}
PACKAGE = {**TITLES, "area": "area of all dies, mm2"}


def design_of(catalog: Catalog, chip: str) -> Record | None:
    """The record of design variables of a chip, or None."""
    for record in catalog.records["rebuild"].values():
        if chip in (record.meta.get("chip"), record.id) and record.meta["style"] in FAMILIES:
            return record
    return None


def _entries(catalog: Catalog, record: Record) -> Iterator[tuple[str, str]]:
    """Kind and id of the files that the rebuilding of this chip reads."""
    yield from (("technology", name) for name in TECHNOLOGY)
    yield from (("memories", name) for name in ("sram", "rom", str(record.meta.get("memory", ""))) if name in catalog.records["memories"])
    yield from (("processes", str(record.meta[key])) for key in ("node", "base_node") if key in record.meta)
    yield "families", FAMILIES[str(record.meta["style"])]
    yield from (("rebuild", name) for name in ("constants", record.id))


def trees(catalog: Catalog, chip: str) -> dict[str, dict[str, Part]]:
    """Area, power and cost of a real chip in parts, with intervals, from its published design variables.

    Raises:
        InputError: no design variables of that chip are in the catalogue.
    """
    record = design_of(catalog, chip)
    if record is None:
        known = [str(r.meta["chip"]) for r in catalog.records["rebuild"].values() if "chip" in r.meta]
        raise InputError(f"explain — found '{chip}', allowed a chip with design variables: {', '.join(known)}{closest(chip, known)}")
    identity = record.id

    def build(other: Catalog) -> Trees:
        made = rebuild(other.records["rebuild"][identity], constants(other))
        return {"area": made.area_mm2, "power": made.power_w, "cost": made.cost_usd}

    return moved.parts_of(catalog, build, _entries(catalog, record))


def text(catalog: Catalog, chip: str) -> str:
    """The trees of a real chip as lines for a terminal."""
    return moved.text(trees(catalog, chip), TITLES)


def design_trees(catalog: Catalog, family: str, decisions: Mapping[str, Any]) -> dict[str, dict[str, Part]]:
    """Area, power and cost of a hypothetical chip in parts, with intervals, from its decisions.

    Args: the catalogue; a family of chips; decisions by name, what is left out at its default.

    Raises:
        InputError: unknown family or decision.
    """
    if family not in BUILDERS:
        raise InputError(f"explain — found the family '{family}', allowed {', '.join(BUILDERS)}{closest(family, BUILDERS)}")
    space = space_of(BUILDERS[family], build_range(catalog.records["families"][family]))
    values = space.from_named(decisions)
    node = NODES[round(values["node"])]
    memory = MEMORIES[round(values["memory"])] if "memory" in values else ""

    def build(other: Catalog) -> Trees:
        made = BUILDERS[family].build(values, other.processes[node], other.technology, build_family(other.records["families"][family]))
        return as_floats({"area": made.area_mm2, "power": made.power_w, "cost": made.cost_usd})  # type: ignore[no-any-return]

    entries = [*(("technology", name) for name in TECHNOLOGY), ("processes", node), ("families", family)]
    entries += [("memories", name) for name in (*ON_DIE, memory) if name in catalog.records["memories"]]
    return moved.parts_of(catalog, build, entries)


def design_text(catalog: Catalog, family: str, decisions: Mapping[str, Any]) -> str:
    """The trees of a hypothetical chip as lines for a terminal."""
    return moved.text(design_trees(catalog, family, decisions), PACKAGE)


# --- a chip of which only the datasheet is known ----------------------------------------------------------------------


def datasheet_trees(catalog: Catalog, chip: str) -> dict[str, dict[str, Part]]:
    """What a datasheet and the constants say of area, power and cost: interfaces and memory by constants, the rest as a remainder."""
    record = catalog.records["chips"][chip]
    node, memory = _node(catalog, record), _memory(catalog, record)

    def build(other: Catalog) -> Trees:
        return _datasheet(other, other.records["chips"][chip], node, memory)

    entries = [*(("technology", name) for name in TECHNOLOGY), ("processes", node), ("chips", chip)]
    entries += [("families", str(record.meta["family"]))] if str(record.meta["family"]) in BUILDERS else []
    entries += [("memories", memory)] if memory else []
    return moved.parts_of(catalog, build, entries)


def datasheet_text(catalog: Catalog, chip: str) -> str:
    """The trees of a datasheet as lines for a terminal."""
    return moved.text(datasheet_trees(catalog, chip), PACKAGE)


def _node(catalog: Catalog, record: Record) -> str:
    name = str(record.meta.get("node", "n5")).lower()
    return catalog.resolve("processes", name) if name in catalog.records["processes"] or _known(catalog, name) else "n5"


def _known(catalog: Catalog, name: str) -> bool:
    return any(name in other.aliases for other in catalog.records["processes"].values())


def _memory(catalog: Catalog, record: Record) -> str:
    """Id of the kind of memory that the datasheet names; HBM3E where it has memory and names none."""
    named = str(record.meta.get("memory_type", "")).lower()
    known = sorted((name for name in catalog.technology.memories if name in named), key=len)
    has = "memory_bandwidth" in record.values and str(record.meta.get("sram_role", "")) != "model"
    return known[-1] if known else "hbm3e" if has else ""


def _datasheet(catalog: Catalog, record: Record, node: str, memory: str) -> Trees:
    v = {name: q.value for name, q in record.values.items()}
    technology, process = catalog.technology, catalog.processes[node]
    family = catalog.families[str(record.meta["family"])] if str(record.meta["family"]) in BUILDERS else catalog.families["hbm_gpu"]
    site = technology.memories.get(memory)
    dies, area = v.get("dies", 1.0), v.get("die_area", 0.0) * v.get("dies", 1.0)
    sites = 0.0 if site is None else v["memory_bandwidth"] / (site.bandwidth_byte_per_s * site.rate_share)
    found: Trees = {"area": {}, "power": _watts(v, area, sites, site, process, catalog), "cost": {}}
    if area and area / dies <= technology.packaging.reticle_mm2:
        link, density = technology.link, process.density_transistor_per_mm2
        edges = {
            "memory interfaces": 0.0
            if site is None
            else float(silicon.phy_area_mm2(sites, site.phy_mm2, site.controller_transistor, density)),
            "links": float(
                silicon.phy_area_mm2(v.get("link_bandwidth", 0.0), link.phy_mm2_s_per_byte, link.controller_transistor_s_per_byte, density)
            ),
            "host": float(silicon.phy_area_mm2(1.0, link.host_phy_mm2, link.host_controller_transistor, density)),
        }
        found["area"] = {**edges, "compute, memory and the rest": max(area - sum(edges.values()), 0.0)}
        found["cost"] = _bill(v, area / dies, dies, sites, site, process, catalog, family)
    return found


def _watts(
    v: dict[str, float], area_mm2: float, sites: float, site: MemoryTechnology | None, process: Process, catalog: Catalog
) -> dict[str, float]:
    p, link = catalog.technology.power, catalog.technology.link
    if "tdp" not in v:
        return {}
    known = {
        "leakage": power.leakage_w(area_mm2, process.leakage_w_per_mm2, p.nominal_v, p.nominal_v, p.leakage_exponent_per_v),
        "memory": power.rate_power_w(v["memory_bandwidth"], site.j_per_byte) if site is not None else 0.0,
        "links": power.rate_power_w(2 * p.tdp_link * v.get("link_bandwidth", 0.0), link.j_per_byte),
    }
    floats = {name: float(watt) for name, watt in known.items()}
    return {**floats, "compute and the rest": max(v["tdp"] - sum(floats.values()), 0.0)}


def _bill(
    v: dict[str, float],
    die_mm2: float,
    dies: float,
    sites: float,
    site: MemoryTechnology | None,
    process: Process,
    catalog: Catalog,
    family: FamilyConstants,
) -> dict[str, float]:
    k = catalog.technology.packaging
    good = fabrication.die_yield(
        fabrication.critical_defects(die_mm2, process.defects_per_mm2, family.repairable), k.clustering, k.poisson, k.murphy
    )
    made = dies * fabrication.die_cost_usd(process.wafer_usd, fabrication.dies_per_wafer(die_mm2, k.wafer_mm), good)
    memory = v.get("memory_physical", v.get("memory_capacity", 0.0)) * site.usd_per_byte if site is not None else 0.0
    on = site is not None and bool(site.interposer)
    if on and site is not None:
        silicon_mm2 = dies * die_mm2 + sites * site.package_mm2
        package = fabrication.interposer_package_usd(silicon_mm2, k.interposer_fixed_usd, k.interposer_area_usd_per_mm2, k.interposer_fill)
        loss = fabrication.assembly_loss_usd(package, made, dies, memory, sites, k.component_yield)
    else:
        package = fabrication.substrate_package_usd(dies, k.substrate_usd, k.substrate_die_usd)
        loss = fabrication.assembly_loss_usd(package, made, dies, 0.0, 0.0, k.component_yield)
    test = k.interposer_test_usd if on else k.substrate_test_usd
    parts = {"dies": made, "memory": memory, "package": package, "assembly loss": loss, "test": test}
    return {name: float(usd) for name, usd in parts.items()}
