"""How far are rebuilt chips from published ones: area, peak, SRAM, bandwidth, power, bill of materials, and block by block?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dse.catalog import Catalog, Record
from dse.validate.silicon.chips import Rebuilt, rebuild
from dse.validate.silicon.floor import Constants, base_die, gpu_die
from dse.validate.silicon.table import Row, Table, counted, error, judged

STYLES = ("gpu", "spatial", "burned_in")
AREA = {"NVIDIA": 0.08}  # errors that are asked for; every other maker AREA_REST
AREA_REST, AREA_LEFT_OUT, BLOCK, PEAK, SRAM, BANDWIDTH = 0.20, 0.12, 0.20, 0.05, 0.15, 0.05
TDP_HBM, TDP_REST, BOM = 0.12, 0.20, 0.12
FITTED = ("design-a100", "design-h100", "design-b200")  # the dies on which the multiply-add of a tensor core is set
OWN = ("dse-silicon-fit", "assumption", "derived")  # not published: rebuilt, assumed or computed here
NOT_A_LIMIT = {"ibm-northpole": "42 W is a measured mean on language models, not a limit"}


def designs(catalog: Catalog, styles: Sequence[str] = STYLES) -> list[Record]:
    """Records of design variables, in the order of their files."""
    return [r for r in catalog.records["rebuild"].values() if r.meta["style"] in styles]


def published(catalog: Catalog, record: Record, field: str) -> tuple[float | None, str]:
    """Published figure of the chip and its source; None where there is none, or where it was rebuilt by this package."""
    chip = str(record.meta.get("chip", ""))
    quantity = record.values.get(f"published.{field}") or (catalog.records["chips"][chip].values.get(field) if chip else None)
    if quantity is None or quantity.source in OWN or field in record.meta.get("circular", ()):
        return None, ""
    return quantity.value, quantity.source


def _row(record: Record, quantity: str, unit: str, predicted: float | None, found: tuple[float | None, str], note: str = "") -> Row:
    name = str(record.meta.get("chip", record.id.removeprefix("design-")))
    scale = {"TFLOP/s": 1e12, "MB": 1e6, "TB/s": 1e12}.get(unit, 1.0)
    value = None if found[0] is None else found[0] / scale
    return {
        "chip": name,
        "quantity": quantity,
        "unit": unit,
        "predicted": None if predicted is None else predicted / scale,
        "published": value,
        "source": found[1],
        "note": note,
    }


AREA_NOTES = {
    "amd-mi300x": "one compute die; the density of AMD's logic is set on it, so it tests nothing; the I/O dies stand in base_dies",
    "nvidia-l40s": "graphics blocks of a core set on AD103 and AD104: a prediction",
    "ibm-northpole": "with its fp16 vector and activation units and a router for each of four networks",
    "google-tpu-v4": "only a bound of 600 mm2 is public",
    "cerebras-wse-3": "SRAM in banks of 6 kB takes half of it: bound by ports, not by bits; 970,000 cores lie on it, 900,000 work",
    "cerebras-wse-2": "the share of spare cores is that of WSE-3",
    "d-matrix-corsair": "no die area is published",
    "groq-lpu-v1": "with the gate pitch and the bit cell of its own foundry",
}
TDP_NOTES = {
    "cerebras-wse-3": "published is the system of 23 kW, not the wafer; the fabric between cores is left out",
    "cerebras-wse-2": "published is the system, not the wafer; the fabric between cores is left out",
    "groq-lpu-v1": "published figures contradict each other: 300 W from two sources, 215 W from a third (error against that +47 %)",
    "nvidia-h200-sxm": "the same limit as H100 with 48 % more bandwidth, which HBM3E gives at less energy a bit; a limit is a throttle",
}
PORT_NOTES = {
    "groq-lpu-v1": "published figures contradict each other: 1760 ports of 16 byte in and 16 out give 51 TB/s at the 0.9 GHz that ships, "
    "70 (-12 %) at the 1.25 GHz of the first announcement; the label of 80 names no clock"
}
NO_AREA_TEST = ("google-tpu-v4", "d-matrix-corsair", "amd-mi300x")


def chip_rows(catalog: Catalog, record: Record, made: Rebuilt) -> list[Row]:
    """Every figure of one chip against the published one."""
    chip, style = str(record.meta.get("chip", "")), record.meta["style"]
    area = "area" if style == "burned_in" and "published.area" in record.values else "die_area"
    allowed = None if chip in NO_AREA_TEST else AREA.get(str(record.meta["vendor"]), AREA_REST)
    if record.meta.get("graphics") == "yes":
        allowed = AREA_REST if chip else None
    rows = [judged(_row(record, "die area", "mm2", made.die_mm2, published(catalog, record, area), AREA_NOTES.get(chip, "")), allowed)]
    if style == "burned_in" or not chip:
        return rows
    eight = style == "spatial" and not record.values["mac16"].value
    hbm = str(record.meta.get("memory", "")).startswith("hbm")
    system = chip.startswith("cerebras")
    port_note = PORT_NOTES.get(chip, "")
    peak = published(catalog, record, "peak_int8" if eight else "peak_bf16")
    rate = published(catalog, record, "sram_bandwidth") if made.sram_byte_per_s else (None, "")
    tdp = (None, "") if chip == "ibm-northpole" else published(catalog, record, "tdp")
    return [
        *rows,
        judged(_row(record, "peak, 8 bit" if eight else "peak, 16 bit", "TFLOP/s", made.peak_flop_per_s, peak), PEAK),
        *_capacity(catalog, record, made),
        judged(_row(record, "SRAM bandwidth", "TB/s", made.sram_byte_per_s, rate, port_note), SRAM),
        judged(_row(record, "memory bandwidth", "TB/s", made.memory_byte_per_s, _bandwidth(catalog, record, made)), BANDWIDTH),
        judged(
            _row(record, "TDP", "W", sum(made.power_w.values()), tdp, TDP_NOTES.get(chip, NOT_A_LIMIT.get(chip, ""))),
            None if system else TDP_HBM if hbm else TDP_REST,
        ),
        judged(_row(record, "bill of materials", "USD", sum(made.cost_usd.values()) or None, published(catalog, record, "bom")), BOM)
        if not system
        else {},
    ]


def _capacity(catalog: Catalog, record: Record, made: Rebuilt) -> list[Row]:
    """SRAM that the published die area leaves beside the other blocks; of a cache or a die without published area it says nothing."""
    area, capacity = published(catalog, record, "die_area"), published(catalog, record, "sram_capacity")
    if record.meta["style"] != "spatial" or area[0] is None or made.sram_byte is None:
        return []
    block = made.area_mm2["SRAM"]
    outside = made.area_mm2["outside of the blocks"] / made.die_mm2
    left = area[0] * (1 - outside) - (made.die_mm2 * (1 - outside) - block)
    note = "what its published area holds beside the other blocks"
    return [judged(_row(record, "SRAM", "MB", made.sram_byte * left / block, capacity, note), SRAM)]


def _bandwidth(catalog: Catalog, record: Record, made: Rebuilt) -> tuple[float | None, str]:
    """Only where a pin rate is published: a rate computed from the bandwidth would test nothing."""
    return published(catalog, record, "memory_bandwidth") if made.memory_byte_per_s else (None, "")


def real_chips(catalog: Catalog, k: Constants) -> Table:
    """The error table of real chips."""
    rows = [row for r in designs(catalog) for row in chip_rows(catalog, r, rebuild(r, k)) if row and row["predicted"] is not None]
    return Table(
        "real_chips",
        "Real chips rebuilt from their published design variables",
        "die area 8 % (NVIDIA data centre) or 20 %; peak 5 %; SRAM and its bandwidth 15 %; off-chip bandwidth 5 % from the pin rate; "
        "TDP 12 % (HBM) or 20 %; bill of materials 12 %",
        counted(rows),
        rows,
        [
            "A row without a published figure is a prediction. A figure that this package rebuilt itself is not taken as published.",
            "H200 shares the die of H100. B200: the driver now reports 7680 of the 8192 pins, which would give 7.67 TB/s against "
            "labels of 7.7 and 8.0.",
            "Peak is units times clock and tests the counts alone. The 125 PFLOP/s of WSE-3 count eightfold sparsity.",
            "SRAM of a GPU is a design variable, not a result: it is left out. Of spatial machines it is what the published area "
            "has room for.",
            "Figures from which a design variable was computed are left out: peak of B200, WSE and Corsair, SRAM bandwidth of NorthPole.",
            "The bill of MI300X has no row for parts lost in assembly, that of B200 has 1100 USD of it: see bills_of_materials.",
        ],
    )


def base_dies(catalog: Catalog, k: Constants) -> Table:
    """Dies below stacked compute are as large as what lies on them."""
    rows = []
    for record in designs(catalog, ("gpu",)):
        if "base.area" not in record.values:
            continue
        area = record.values["base.area"]
        for name, predicted in base_die(record, k).items():
            row = {"chip": record.meta["chip"], "bound": name, "predicted": predicted, "published": area.value, "source": area.source}
            rows.append(judged(row, AREA_REST if "beside" in name else None))
    note = "What the die holds is under a third of it. Compute above it, and interfaces that must lie beside that, set its size."
    return Table("base_dies", "Base dies are limited by packing, not by content", "20 %, the cause modelled", counted(rows), rows, [note])


def die_fit(catalog: Catalog, k: Constants) -> Table:
    """NVIDIA's data-centre dies with the multiply-add fitted to all of them and with each left out."""
    records = [catalog.records["rebuild"][name] for name in FITTED]
    real = {r.id: float(published(catalog, r, "die_area")[0] or 0.0) for r in records}
    committed = k.families["hbm_gpu"].mac_transistor
    rows = []
    for record in records:
        others = [r for r in records if r is not record]
        without = fitted_mac([(r, real[r.id]) for r in others], k)
        row = {
            "chip": record.meta["chip"],
            "quantity": "left out",
            "predicted": sum(gpu_die(record, k, without).values()),
            "published": real[record.id],
            "MTr of a multiply-add": without / 1e6,
        }
        inside = error(sum(gpu_die(record, k).values()), real[record.id])
        rows.append({**judged(row, AREA_LEFT_OUT), "error, not left out": inside})
    everything = fitted_mac([(r, real[r.id]) for r in records], k)
    return Table(
        "die_fit",
        "Die area of NVIDIA's data-centre GPUs, fitted and left out",
        "8 % fitted, 12 % with the chip left out of the fit",
        counted(rows),
        rows,
        [
            f"One constant is fitted: {everything / 1e6:.3f} MTr for one fp16 multiply-add, by least squares of relative errors; "
            f"committed {committed / 1e6:.3f}.",
            "A die of B200 has 80 cores, 74 of them enabled; its area is not measured (790 to 814).",
        ],
    )


def fitted_mac(dies: Sequence[tuple[Record, float]], k: Constants) -> float:
    """Transistors of one multiply-add that fit these dies best; areas are linear in them, so one step is exact."""
    low, high = 0.0, 1.0e5
    top = bottom = 0.0
    for record, real in dies:
        start = sum(gpu_die(record, k, low).values()) / real - 1
        slope = (sum(gpu_die(record, k, high).values()) / real - 1 - start) / high
        top, bottom = top - start * slope, bottom + slope * slope
    return top / bottom


def a100_blocks(catalog: Catalog, k: Constants) -> Table:
    """The die photograph of the A100 against the floor plan."""
    record = catalog.records["rebuild"]["design-a100"]
    blocks, t, density = gpu_die(record, k), k.technology, k.process(record).density_transistor_per_mm2
    site = t.memories["hbm2e"]
    sites, link = record.values["sites"].value, record.values["link"].value
    phy = link * k.own["nvlink3.phy"]
    ours = {
        "cores": sum(blocks[name] for name in ("tensor", "vector", "control", "registers", "L1")),
        "crossbar": blocks["crossbar"],
        "L2_cache": blocks["cache"],
        "HBM_interface": sites * site.phy_mm2,
        "HBM_controller": sites * site.controller_transistor / density,
        "NVLink_interface": phy,
        "other": blocks["other"] + blocks["host"] + blocks["links"] - phy,
    }
    split = {name.removeprefix("split."): q for name, q in catalog.records["rebuild"]["a100-die-split"].values.items()}
    rows = [
        judged({"block": name.replace("_", " "), "predicted": ours[name], "published": q.value, "source": q.source}, BLOCK)
        for name, q in split.items()
    ]
    total = {"block": "die", "predicted": sum(ours.values()), "published": sum(q.value for q in split.values()), "source": "llmcompass"}
    note = (
        "Cache ports, crossbar and 'other' were set on this photograph; cores, memory and links were not. "
        "'other' holds host interface and NVLink controllers."
    )
    return Table("a100_blocks", "A100 die photograph, block by block", "20 % a block", counted(rows), [*rows, judged(total, BLOCK)], [note])


def bills(catalog: Catalog, k: Constants) -> Table:
    """Bills of materials in parts, and without the loss in assembly that some published bills leave out."""
    rows: list[dict[str, Any]] = []
    for record in designs(catalog, ("gpu",)):
        bom, source = published(catalog, record, "bom")
        if bom is None:
            continue
        cost = rebuild(record, k).cost_usd
        whole = {"chip": record.meta["chip"], "quantity": "whole", "predicted": sum(cost.values()), "published": bom, "source": source}
        rows.append({**judged(whole, BOM), **cost})
        less = {**whole, "quantity": "without assembly loss", "predicted": sum(cost.values()) - cost["assembly loss"]}
        rows.append(judged(less, None))
    return Table(
        "bills_of_materials",
        "Bills of materials",
        "12 % of the published figure",
        counted(rows),
        rows,
        [
            "All use one HBM price, that of the published bills (15.1 USD/GB in 2025; the bill of H100 implies 16.9).",
            "Published bills differ in scope: B200 names 1100 USD of loss in assembly, MI300X (dies 600, memory 2900, package 1200, "
            "test 600) none. A failed placement takes with it what was placed before, not what would follow: with everything at stake in "
            "every placement MI300X, of twelve components, comes out at +15 %. Test and assembly are the mean of three published rows. The "
            "second row of each chip leaves the loss out.",
        ],
    )
