"""What do published design variables give: area, peak, SRAM, bandwidth, power and bill of materials, each with its parts?

Everything is computed with the functions and constants that build hypothetical chips; no number belongs to one chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from dse.catalog import Record
from dse.equations import fabrication, power, silicon
from dse.validate.silicon.floor import Constants, base_die, burned_die, gpu_die, spatial_die, values_of

FAMILY = {"gpu": "hbm_gpu", "spatial": "sram", "burned_in": "burned_in"}


@dataclass(frozen=True)
class Rebuilt:
    """One chip from its design variables, SI and mm2; parts sum to their whole. None where the data do not allow it."""

    area_mm2: dict[str, float]  # of one die
    base_mm2: float  # of each die below, 0 without
    peak_flop_per_s: float | None
    sram_byte: float | None
    sram_byte_per_s: float | None
    memory_byte_per_s: float | None
    power_w: dict[str, float]
    cost_usd: dict[str, float]

    @property
    def die_mm2(self) -> float:
        return sum(self.area_mm2.values())


def rebuild(record: Record, k: Constants) -> Rebuilt:
    """The chip that these design variables give."""
    style = record.meta["style"]
    area = {"gpu": gpu_die, "spatial": spatial_die, "burned_in": burned_die}[style](record, k)
    v = values_of(record)
    base = base_die(record, k)["compute above, interfaces beside it"] if "base.dies" in v else 0.0
    found = Rebuilt(area, base, _peak(record), _sram(v), _sram_rate(v), _memory_rate(v), {}, {})
    power_w = {} if style == "burned_in" else _power(record, found, k)
    cost = _cost(record, found, k) if _priced(record, found, k) else {}
    return Rebuilt(area, base, found.peak_flop_per_s, found.sram_byte, found.sram_byte_per_s, found.memory_byte_per_s, power_w, cost)


def _priced(record: Record, found: Rebuilt, k: Constants) -> bool:
    """Dies, not wafers (nothing is twice a reticle), and memory whose number of stacks is known."""
    one = found.die_mm2 / record.values["dies"].value if record.meta["style"] == "burned_in" else found.die_mm2
    known = "memory" not in record.meta or bool({"stacks", "sites"} & set(record.values))
    return known and one < 2 * k.technology.packaging.reticle_mm2


def _peak(record: Record) -> float | None:
    """Units times two times clock: 16 bit, or 8 bit where there are only 8-bit multipliers."""
    v = values_of(record)
    if "clock" not in v:
        return None
    units = v["cores_enabled"] * v["mac16"] if record.meta["style"] == "gpu" else v["mac16"] or v["mac8"]
    return v["dies"] * units * 2 * v["clock"]


def _sram(v: dict[str, float]) -> float | None:
    if "base.cache" in v:
        return v["base.cache"] * v["base.dies"]
    one = v.get("cache_enabled", v.get("sram"))
    return None if one is None else one * v["dies"]


def _sram_rate(v: dict[str, float]) -> float | None:
    return v["ports"] * v["port"] * v["clock"] if "ports" in v else None


def _memory_rate(v: dict[str, float]) -> float | None:
    """Stacks x pins x rate of a pin."""
    if "pin_rate" not in v:
        return None
    return v["dies"] * v["stacks"] * v["stack_bits"] * silicon.BIT_PER_BYTE * v["pin_rate"]


def flop_j(record: Record, k: Constants) -> float:
    """Energy of an operation of the peak at the node of the die, J."""
    family, node = k.families["hbm_gpu"], k.process(record).energy
    if record.meta["style"] == "gpu":
        at_n7 = family.special["small_flop"] if record.meta["datapath"] == "small" else family.flop_j
    elif record.meta["arithmetic"] == "systolic":
        at_n7 = k.own["flop_systolic"]
    else:
        at_n7 = k.own["flop_int8"] * (2 if record.values["mac16"].value else 1)
    nominal = k.technology.power.nominal_v
    return float(power.dynamic_energy_j(at_n7, node, nominal, nominal))


def _leakage(area_mm2: float, w_per_mm2: float, k: Constants) -> float:
    """At nominal voltage: supplies of real chips are not published."""
    p = k.technology.power
    return float(power.leakage_w(area_mm2, w_per_mm2, p.nominal_v, p.nominal_v, p.leakage_exponent_per_v))


def _power(record: Record, found: Rebuilt, k: Constants) -> dict[str, float]:
    """What adds up to the TDP."""
    v, t, process = values_of(record), k.technology, k.process(record)
    site = t.memories.get(str(record.meta.get("memory", "")))
    watts = {
        "leakage": _leakage(found.die_mm2 * v["dies"], process.leakage_w_per_mm2, k),
        "compute": power.rate_power_w(found.peak_flop_per_s or 0.0, flop_j(record, k)),
        "memory": power.rate_power_w(found.memory_byte_per_s or 0.0, site.j_per_byte if site else 0.0),
        "links": power.rate_power_w(2 * t.power.tdp_link * v["link"] * v["dies"], t.link.j_per_byte),
    }
    if site is not None and found.memory_byte_per_s is None:
        watts["memory"] = power.rate_power_w(v["sites"] * v["dies"] * site.bandwidth_byte_per_s * site.rate_share, site.j_per_byte)
    if found.base_mm2:
        base = k.process(record, "base_node")
        watts["leakage"] = watts["leakage"] + _leakage(found.base_mm2 * v["base.dies"], base.leakage_w_per_mm2, k)
    if found.sram_byte_per_s is not None:
        each = power.sram_energy_j_per_byte(t.sram.j_per_byte, v["bank"], t.sram.reference_bank_byte, t.sram.bank_exponent)
        watts["sram"] = power.rate_power_w(t.power.tdp_sram * found.sram_byte_per_s, float(each) * process.energy)
    return {name: float(watt) for name, watt in watts.items()}


def _dies_usd(area_mm2: float, node: str, repairable: float, k: Constants) -> float:
    """One good die."""
    pack, process = k.technology.packaging, k.processes[node]
    good = fabrication.die_yield(
        fabrication.critical_defects(area_mm2, process.defects_per_mm2, repairable), pack.clustering, pack.poisson, pack.murphy
    )
    return float(fabrication.die_cost_usd(process.wafer_usd, fabrication.dies_per_wafer(area_mm2, pack.wafer_mm), good))


def _cost(record: Record, found: Rebuilt, k: Constants) -> dict[str, float]:
    """Bill of materials. Dies bonded on others are joined before anything else is at stake."""
    v, pack = values_of(record), k.technology.packaging
    repairable = k.families[FAMILY[record.meta["style"]]].repairable
    area = found.die_mm2 / v["dies"] if record.meta["style"] == "burned_in" else found.die_mm2
    dies = v["dies"] * _dies_usd(area, record.meta["node"], repairable, k)
    placed, footprint = v["dies"], v["dies"] * area
    bond, y = 0.0, pack.component_yield
    if found.base_mm2:
        below = v["base.dies"] * _dies_usd(found.base_mm2, record.meta["base_node"], repairable, k)
        bond = v["dies"] * k.own["hybrid_bond"] + float(fabrication.assembly_loss_usd(below, dies, v["dies"], 0.0, 0.0, y))
        dies, placed, footprint = dies + below, v["base.dies"], v["base.dies"] * found.base_mm2
    site = k.technology.memories.get(str(record.meta.get("memory", "")))
    stacks = v.get("stacks", v.get("sites", 0.0)) * v["dies"] if site else 0.0
    on = site is not None and bool(site.interposer)
    price = k.own["hbm_price"] if on else site.usd_per_byte if site else 0.0
    memory = stacks * v.get("stack_capacity", site.capacity_byte if site else 0.0) * price
    if on and site is not None:
        package = fabrication.interposer_package_usd(
            footprint + stacks * site.package_mm2, pack.interposer_fixed_usd, pack.interposer_area_usd_per_mm2, pack.interposer_fill
        )
        test = pack.interposer_test_usd
    else:
        package, test = fabrication.substrate_package_usd(placed, pack.substrate_usd, pack.substrate_die_usd), pack.substrate_test_usd
    beside = (memory, stacks) if on else (0.0, 0.0)  # memory on the board is not at stake
    loss = fabrication.assembly_loss_usd(package, dies + bond, placed, *beside, y)
    parts = {"dies": dies, "memory": memory, "bonding": bond, "package": package, "assembly loss": loss, "test": test}
    return {name: float(usd) for name, usd in parts.items()}
