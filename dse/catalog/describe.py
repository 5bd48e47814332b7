"""Is a catalogue folder in order, what does it lack, and what does an entry say? Texts for ``dse catalog list|show|check|new-chip``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dse.catalog import Catalog
from dse.catalog.loader import Loaded, load_folder
from dse.catalog.records import Quantity, Record
from dse.catalog.schema import kinds
from dse.errors import InputError, closest
from dse.paths import data_dir
from dse.units import format_si

MISSING_FILE = "_missing.toml"
BUILT = ("chips", "models", "workloads", "prices", "processes", "families", "constants")


def check(folder: str | Path | None = None) -> list[str]:
    """Every problem of a catalogue folder (None: the shipped one): files, sources, names, and each entry built once.

    A folder with a ``sources.bib`` and ``chips/`` is a whole catalogue; any other lies over the shipped one.
    """
    state = Loaded()
    path = data_dir("hw_catalog") if folder is None else Path(folder)
    if not path.is_dir():
        return [f"catalogue: folder — found no folder '{path}', allowed one that holds chips/*.toml or *.toml"]
    whole = (path / "sources.bib").is_file() and (path / "chips").is_dir()
    if not whole:
        load_folder(data_dir("hw_catalog"), state)
    load_folder(path, state, overlay=not whole)
    if state.problems:
        return list(dict.fromkeys(state.problems))
    return _build_all(Catalog(state.records, state.sources, state.files))


def _build_all(catalog: Catalog) -> list[str]:
    problems: list[str] = []
    for kind in BUILT:
        for identity in catalog.records[kind]:
            try:
                getattr(catalog, kind)[identity]
            except InputError as error:
                problems.extend(error.problems)
    return list(dict.fromkeys(problems))


def missing(catalog: Catalog) -> list[dict[str, Any]]:
    """What the catalogue lacks: a row a chip with ``chip, name, status, described, lacks``; first those with too little data."""
    path = data_dir("hw_catalog") / "chips" / MISSING_FILE
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = [
        {"chip": key, "name": row["name"], "status": row["status"], "described": False, "lacks": row["lacks"], "known": row["known"]}
        for key, row in table.items()
    ]
    expected = kinds()["chips"].expected
    for identity, record in sorted(catalog.records["chips"].items()):
        lacks = [name for name in expected if name not in record.values]
        status = record.meta.get("status", "")
        rows.append({"chip": identity, "name": record.name, "status": status, "described": True, "lacks": lacks, "known": ""})
    return rows


def show(record: Record, catalog: Catalog | None = None) -> str:
    """The entry for people: words, each number with interval, confidence and source; with a catalogue also what was filled in."""
    lines = [f"{record.id}: {record.name}   ({record.kind}; {record.file})"]
    if record.aliases:
        lines.append("also called " + ", ".join(record.aliases))
    shown = ("id", "name", "aliases", "kind")
    lines += [f"  {key} = {value}" for key, value in record.meta.items() if key not in shown and not isinstance(value, dict)]
    width = max((len(name) for name in record.values), default=0)
    lines += [f"  {name:<{width}}  {_line(quantity)}" for name, quantity in record.values.items()]
    if catalog is not None and record.kind == "chips":
        constants, how = catalog.constants_of(record.id)
        lines.append(f"  constants: {constants} (by {how})")
        lines.append("filled in, because the entry does not say:")
        lines += [f"  {leaf} from {origin}" for leaf, origin in catalog.filled(record.id)]
    return "\n".join(lines)


def _line(quantity: Quantity) -> str:
    """The number as its file writes it, or in SI where that is zero."""
    scale = quantity.text_value / quantity.value if quantity.value else None

    def people(value: float) -> str:
        return f"{value * scale:.6g} {quantity.text_unit}".removesuffix(" 1") if scale else format_si(value, quantity.unit)

    text = people(quantity.value)
    if quantity.low is not None and quantity.high is not None:
        text += f" ({people(quantity.low)} to {people(quantity.high)})"
    details = [quantity.kind, quantity.source, quantity.where, f"as of {quantity.as_of}" if quantity.as_of else None, quantity.note]
    return f"{text}   [{'; '.join(detail for detail in details if detail)}]"


_OFF_CHIP = """memory_capacity = "80 GB"          # off-chip memory that programs can use
memory_bandwidth = "3.35 TB/s"
"""
_SRAM = """sram_capacity = "230 MB"           # all weights and KV must fit over the chips
sram_bandwidth = "80 TB/s"
sram_role = "model"                # the model lives in SRAM ("cache": it does not)
layer_time = "20 us"               # fixed time of a layer
"""
_ROM = """rom_capacity = "4 GB"              # weights fixed in ROM or metal
layer_time = "2 us"                # a pipelined copy passes one token in this time
nre_model = "1500000 USD"          # masks of one distinct die for one model
"""
_STORES = {
    "sram": _SRAM,
    "compute_in_memory": _SRAM,
    "burned_in": _ROM + _OFF_CHIP,
    "other": _SRAM,
}


def new_chip(identity: str, family: str) -> str:
    """Text of a new chip file of about twenty plain lines, to be edited and kept in a folder of the user's own.

    Raises:
        InputError: unknown family.
    """
    families = kinds()["chips"].choices["family"]
    if family not in families:
        raise InputError(f"chips: family — found '{family}', allowed {', '.join(families)}{closest(family, families)}")
    return f"""# A chip of your own. Keep this file in a folder and pass that as --catalog FOLDER, or give the file in place of a chip id.
# Plain values are read as assumptions of this file. A line left out is filled from the family, and marked so in every report.
id = "{identity}"
name = "{identity}"
family = "{family}"
status = "hypothetical"            # existing, announced, hypothetical, retired, claim
node = "n5"                        # process node of the compute die
vendor = "mine"

peak_bf16 = "989 TFLOP/s"          # dense, 2 FLOP a multiply-add
peak_fp8 = "1979 TFLOP/s"
# peak_fp4 = "4000 TFLOP/s"        # leave out a format that the chip does not compute
{_STORES.get(family, _OFF_CHIP)}link_bandwidth = "450 GB/s"        # scale-up links, one direction, all together
link_domain = 8                    # chips that these links span
scale_out_bandwidth = "400 Gbit/s" # network of one chip
tdp = "700 W"
cooling = "air"                    # or liquid
die_area = "814 mm2"
dies = 1
price = "27500 USD"                # street price; or bom = what it costs to make
"""
