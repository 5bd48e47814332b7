"""Do compute-in-memory constants give published designs, and could cells that wear out hold a KV cache?"""

from __future__ import annotations

from dse.catalog import Catalog
from dse.equations import power, silicon
from dse.types import LLM
from dse.validate.silicon.chips import rebuild
from dse.validate.silicon.floor import Constants, values_of
from dse.validate.silicon.table import Row, Table, counted, judged

TOP, GB, DAY_S, YEAR_S = 1e12, 1e9, 86400.0, 365 * 86400.0  # unit conversions
WITHIN = 0.20
MODEL = "llama-3-70b"
HELD_BYTE = 10 * GB  # of KV cache on the chip, the example
RATES = (100.0, 1000.0, 10000.0)  # tokens a second written into it: prefill and decode
OWNER = "owner-2026"
WEIGHTS_BYTE = 1 * GB  # of one chip, the example of programming
CELLS = ("nvm-rram", "nvm-pcm")


def analog_efficiency(catalog: Catalog, k: Constants, columns_read: float, node: str) -> float:
    """Operations per joule of an analog array that converts one column of ``columns_read`` rows at a time, by the family's constants."""
    family, process = k.families["compute_in_memory"], catalog.processes[node]
    nominal = k.technology.power.nominal_v
    digital = power.dynamic_energy_j(family.flop_j / 2, process.energy, nominal, nominal) * family.special["digital_rest"]
    return float(1 / (digital + family.special["adc_energy"] / (2 * columns_read)))


def compute_in_memory(catalog: Catalog, k: Constants) -> Table:
    """One digital and one analog design."""
    rows: list[Row] = []
    for name in ("design-northpole", "design-corsair"):
        record = catalog.records["rebuild"][name]
        made, chip = rebuild(record, k), catalog.records["chips"][str(record.meta["chip"])].values
        area = None if name == "design-corsair" else chip["die_area"].value
        label = f"{record.meta['chip']} (digital)"
        rows.append(judged({"chip": label, "quantity": "die area, mm2", "predicted": made.die_mm2, "published": area}, WITHIN))
        efficiency = (made.peak_flop_per_s or 0.0) / sum(made.power_w.values()) / TOP
        drawn = chip["tdp"] if name == "design-corsair" else record.values["published.power"]
        printed = chip["peak_int8"].value / drawn.value / TOP
        rows.append(judged({"chip": label, "quantity": "TOPS/W at 8 bit", "predicted": efficiency, "published": printed}, WITHIN))
    record = catalog.records["rebuild"]["design-hermes"]
    v = values_of(record)
    made_tops = analog_efficiency(catalog, k, v["rows"], str(record.meta["node"])) / TOP
    for quantity, name in (("TOPS/W of a core", "published.efficiency"), ("TOPS/W of the chip", "published.chip_efficiency")):
        rows.append(judged({"chip": "HERMES (analog)", "quantity": quantity, "predicted": made_tops, "published": v[name] / TOP}, WITHIN))
    return Table(
        "compute_in_memory",
        "Compute in memory: digital and analog",
        "one digital and one analog published design within 20 % of TOPS/W and of area",
        counted(rows) + "; the area of an analog design is not rebuilt",
        rows,
        [
            "NorthPole: against the 74 W that is published for it; 42 W is a mean on language models. Both are predictions: energy and "
            "area of a multiplier were set on other chips as well.",
            "Corsair: TOPS/W is its peak over its 600 W; no area is published. The vendor's 38 TOPS/W is a claim for another format.",
            "HERMES: the digital share of the family is set on its core and its chip, so that this is consistency, not prediction.",
            "Area of an analog design: three ways were tried and none reaches it. (1) Cells by the squares of NeuRRAM and converters by a "
            "regression of the converter survey (283 um2 each at their rate and resolution, at the survey's best energy) give 0.08 of the "
            "0.62 mm2 of a core; at the energy that its power allows a converter the same regression gives more than the core. "
            "(2) Converters of ISAAC give 0.31. (3) One column in the published pitch of 4 um is 1.02 mm wide; the height of a row is not "
            "in the sources read. The unit cell decides, and its size was not found.",
        ],
    )


def kv_byte_per_token(model: LLM) -> float:
    """Bytes of KV cache that one token writes, in the model's own format.

    Linear and state-space layers keep a state instead and add nothing here.
    """
    values = sum(group.mixers * group.attention.kv_values for group in model.groups)
    return float(values * model.native.kv_byte)


def endurance(catalog: Catalog) -> Table:
    """Life of cells that hold weights, or a KV cache."""
    token = kv_byte_per_token(catalog.models[MODEL])
    service = float(catalog.prices[OWNER].life_year)
    rows: list[Row] = []
    for cell in CELLS:
        writes = catalog.records["memories"][cell].values["endurance"]
        low, high = writes.low or writes.value, writes.high or writes.value
        for rate in RATES:
            years = [silicon.wear_life_s(e, HELD_BYTE, rate * token) / YEAR_S for e in (writes.value, low, high)]
            rows.append(
                {
                    "cell": cell,
                    "holds": "KV cache",
                    "token/s into 10 GB": rate,
                    "overwritten every, s": HELD_BYTE / (rate * token),
                    "life, years": years[0],
                    "low": years[1],
                    "high": years[2],
                    "verdict": "refused" if years[1] < service else "lasts",
                }
            )
        rows.append(
            {"cell": cell, "holds": "weights, replaced every day", "life, years": writes.value * DAY_S / YEAR_S, "verdict": "lasts"}
        )
    special = catalog.families["compute_in_memory"].special
    set_s = catalog.records["memories"]["nvm-rram"].values["set_time"].value
    loads = float(silicon.programming_s(WEIGHTS_BYTE, special["nvm_cells"], set_s, special["nvm_parallel"]))
    rows.append({"cell": "nvm-rram", "holds": f"{WEIGHTS_BYTE / GB:g} GB of weights", "programmed in, s": loads, "verdict": "loads"})
    cases = [row for row in rows if row["verdict"] == "refused"]
    words = ", ".join(
        f"{cell.removeprefix('nvm-').upper()} from {min(r['token/s into 10 GB'] for r in cases if r['cell'] == cell):g} token/s on"
        for cell in CELLS
    )
    return Table(
        "nvm_endurance",
        f"Non-volatile cells for the KV cache of {MODEL}",
        "refused by endurance, with the computed lifetime",
        f"refused (life below the {service:g} years of a server at the low end of the cell's endurance): {words}",
        rows,
        [
            f"{token:,.0f} byte a token. Perfect levelling of wear: real life is shorter. A cell of NeuRRAM takes 8.5 us to set, "
            "200 times what design tools assume, which refuses the cache a second time.",
            "Weights are written once a model: endurance is no obstacle to them.",
        ],
    )
