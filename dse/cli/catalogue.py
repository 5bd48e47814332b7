"""``dse catalog``: what is in the catalogue, from which source, is it whole, and how do I add a chip or a model of my own?"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.cli.common import CatalogOption, JsonOption, open_catalog, print_json, say
from dse.errors import InputError, closest

if TYPE_CHECKING:
    from dse.catalog import Catalog, Record
    from dse.catalog.schema import Field

BUILT = ("chips", "models", "workloads", "prices", "processes", "families", "constants")
EXAMPLE_CHIP = ("peak_bf16", "peak_fp8", "memory_capacity", "memory_bandwidth", "link_bandwidth", "link_domain", "tdp", "price")
EXAMPLE_VALUES = {
    "memory_capacity": "80 GB",
    "link_bandwidth": "450 GB/s",
    "peak_fp8": "1979 TFLOP/s",
    "peak_fp4": "3958 TFLOP/s",
    "peak_fp32": "67 TFLOP/s",
    "peak_int8": "1979 TFLOP/s",
    "vector_fp32": "67 TFLOP/s",
    "memory_physical": "96 GB",
    "sram_capacity": "50 MB",
    "sram_bandwidth": "20 TB/s",
    "scale_out_bandwidth": "50 GB/s",
    "rom_capacity": "4 GB",
    "exp_rate": "4e12 1/s",
    "idle_power": "100 W",
    "transistors": "80000 MTr",
    "bom": "4000 USD_2026",
    "nre": "400 MUSD_2026",
    "nre_model": "20 MUSD_2026",
    "system_extra_cost": "1000 USD_2026",
    "layer_token_time": "5 us",
}
EXAMPLE_COUNTS = {"cores": "132", "dies": "2", "wafers": "0.02", "rom_parameters": "8e9"}
EXAMPLE_DOMAIN = 8  # chips, in the example of a chip file
MISSING = "_missing.toml"
app = typer.Typer(help="What the catalogue holds, and from which source.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="chips, models, workloads, prices ...; all by default.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Chips of which too little is public, and what is lacking.")] = False,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ids and names, by kind."""
    known = open_catalog(catalog)
    if missing:
        _list_missing(as_json)
        return
    if kind is not None and kind not in known.records:
        raise InputError(f"kind — found '{kind}', allowed {', '.join(known.records)}{closest(kind, known.records)}")
    kinds = {name: records for name, records in known.records.items() if kind in (None, name)}
    if as_json:
        print_json({name: [_brief(record) for record in records.values()] for name, records in kinds.items()})
        return
    for name, records in kinds.items():
        print(f"{name} ({len(records)})")
        for record in records.values():
            print(f"  {record.id:<30} {record.name:<36} {record.meta.get('family', '')} {record.meta.get('status', '')}".rstrip())


def _brief(record: Record) -> dict[str, Any]:
    words: dict[str, Any] = {key: record.meta[key] for key in ("family", "status", "vendor") if key in record.meta}
    return {"id": record.id, "name": record.name, "aliases": record.aliases, "file": record.file, **words}


def _list_missing(as_json: bool) -> None:
    """Chips that are known by name only."""
    from dse.paths import data_dir

    path = data_dir("hw_catalog") / "chips" / MISSING
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if as_json:
        print_json({"missing": table})
        return
    for identity, entry in table.items():
        print(f"{identity} ({entry.get('name', identity)}, {entry.get('status', 'status unknown')})")
        print(f"  known: {entry.get('known', 'nothing')}\n  lacks: {', '.join(entry.get('lacks', []))}")


@app.command("show")
def show_command(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="Id or alias of an entry of any kind, or the path of a chip's or a model's file.")
    ],
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every number of an entry with its unit, interval and source."""
    known = open_catalog(catalog)
    found = find_record(known, identity)
    if found is None and identity.endswith(".toml"):
        kind = _kind_of(Path(identity))
        found = kind, known.resolve(kind, identity)
    if found is None:
        ids = [name for records in known.records.values() for name in records]
        raise InputError(f"ID — found '{identity}', allowed an id or alias of the catalogue (dse catalog list){closest(identity, ids)}")
    if as_json:
        print_json(_record_json(known, *found))
    else:
        print(record_text(known, *found))


def _kind_of(path: Path) -> str:
    """What a file of one's own describes: a model has an architecture, a workload tokens; anything else is read as a chip."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "chips"  # whose reader says what is wrong
    return "models" if "architecture" in table else "workloads" if "input_tokens" in table else "chips"


def find_record(catalog: Catalog, name: str) -> tuple[str, str] | None:
    """Kind and id of the entry with that id or alias (chips first), or None."""
    for kind, records in catalog.records.items():
        if name in records:
            return kind, name
        for record in records.values():
            if name.lower() in (record.id.lower(), *(alias.lower() for alias in record.aliases)):
                return kind, record.id
    return None


def _record_json(catalog: Catalog, kind: str, identity: str) -> dict[str, Any]:
    record = catalog.records[kind][identity]
    values = {name: {key: v for key, v in vars(quantity).items() if v is not None} for name, quantity in record.values.items()}
    filled = [{"leaf": leaf, "from": origin} for leaf, origin in catalog.filled(identity)] if kind == "chips" else []
    counted = {"counts": _counts(record)} if kind == "models" else {}
    words = {"kind": kind, "id": identity, "name": record.name, "file": record.file, "meta": record.meta, "values": values}
    return {**words, "filled": filled, **counted}


def _counts(record: Any) -> dict[str, float]:
    """Parameters, cache and state of a model, counted from its architecture."""
    from dse.catalog.models import counts

    return counts(record)


COUNTED = {  # of a model's text part: what is shown for people
    "params": ("parameters", "1e9"), "active_params": ("of them used for a token", "1e9"), "mtp_params": ("extra prediction layers", "1e9"),
    "kv_byte_per_token": ("cache of a token, bf16", "byte"), "kv_byte_per_token_window": ("of it within windows", "byte"),
    "state_byte_per_sequence": ("state of a sequence", "byte"),
}  # fmt: skip


def _model_lines(record: Any) -> list[str]:
    """Layers of a model, and its counts."""
    arch, counted = record.meta["architecture"], _counts(record)
    lines = [f"  layers: {' + '.join(f'{n} x {text}' for n, text in arch['layer_pattern'])}"]
    lines += [
        f"  layer {letter}: {', '.join(f'{role} {name}' for role, name in kind.items())}" for letter, kind in arch["layer_types"].items()
    ]
    for table in ("mixers", "ffns"):
        lines += [f"  {name}: {', '.join(f'{k} {v}' for k, v in part.items())}" for name, part in arch[table].items()]
    if "where" in arch:
        lines.append(f"  read from: {arch['where']}")
    for key, (label, unit) in COUNTED.items():
        if counted[key]:
            number = f"{counted[key] / 1e9:.5g} billion" if unit == "1e9" else f"{counted[key]:,.0f} byte"
            lines.append(f"  {label:<30} {number:>14}  counted")
    return lines


def record_text(catalog: Catalog, kind: str, identity: str) -> str:
    """One entry as text: words, numbers with unit, interval, kind and source, and what comes from the family."""
    from dse.units import format_si

    record = catalog.records[kind][identity]
    lines = [f"{record.name} ({identity}), {kind}, {record.file}"]
    words = {key: value for key, value in record.meta.items() if key not in ("id", "name") and not isinstance(value, Mapping)}
    lines += [f"  {key}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in words.items()]
    for name, q in record.values.items():
        interval = f" ({format_si(q.low, q.unit)} to {format_si(q.high, q.unit)})" if q.low is not None and q.high is not None else ""
        note = "; ".join(text for text in (q.where, q.as_of, q.note) if text)
        lines.append(f"  {name:<30} {format_si(q.value, q.unit):>14}{interval}  {q.kind}, {q.source}" + (f" [{note}]" if note else ""))
    if kind == "models":
        lines += _model_lines(record)
    if kind == "chips":
        lines += [f"  {leaf:<30} {'':>14}  from {origin}" for leaf, origin in catalog.filled(identity)]
        lines.append("  constants: {} (found by {})".format(*catalog.constants_of(identity)))
    return "\n".join(lines)


@app.command("check")
def check_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder of your own; the shipped catalogue alone by default.")
    ] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file, build every entry, and print all problems."""
    known = open_catalog(folder or catalog)
    problems = [line for kind in BUILT for identity in known.records[kind] for line in _problems(known, kind, identity)]
    problems += _problems(known, "technology", None)
    if problems:
        raise InputError(problems)
    counts = {kind: len(records) for kind, records in known.records.items()}
    numbers = sum(len(record.values) for records in known.records.values() for record in records.values())
    if as_json:
        print_json({"ok": True, "entries": counts, "numbers": numbers, "sources": len(known.sources), "sha256": known.sha256})
    else:
        print(f"ok: {', '.join(f'{count} {kind}' for kind, count in counts.items())}; {numbers} numbers, {len(known.sources)} sources")


def _problems(catalog: Catalog, kind: str, identity: str | None) -> list[str]:
    """What is wrong with building one entry, or all of a kind that makes one whole."""
    try:
        built = getattr(catalog, kind)
        if identity is not None:
            built[identity]
    except InputError as error:
        return error.problems
    return []


@app.command("import-model")
def import_model_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="config.json of a Hugging Face model.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write there instead of to stdout.")] = None,
    as_json: JsonOption = False,
    catalog: CatalogOption = None,
) -> None:
    """A model file from a config.json."""
    from dse.catalog.huggingface import import_hf_config

    text = import_hf_config(file)
    _deliver(text, out, as_json)
    if not as_json:
        found = _counts(tomllib.loads(text))
        read = out or "the file that you keep this in"
        say(f"{found['params'] / 1e9:.4g} billion parameters, {found['active_params'] / 1e9:.4g} used for a token; --model takes {read}")


@app.command("new-chip")
def new_chip_command(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the new chip: lower case with dashes.")],
    family: Annotated[str, typer.Option("--family", metavar="F", help="Chip family; what the file leaves out comes from it.")] = "hbm_gpu",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write there instead of to ID.toml.")] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """A chip file to fill in (in DIR/chips with --catalog DIR)."""
    from dse.catalog.schema import kinds

    families = kinds()["chips"].choices["family"]
    if family not in families:
        raise InputError(f"--family — found '{family}', allowed {', '.join(families)}{closest(family, families)}")
    path = out or (catalog / "chips" if catalog else Path()) / f"{identity}.toml"
    _deliver(chip_template(identity, family), path, as_json)
    if not as_json:
        say(f"put your numbers in, then: dse eval --chip {path} --model llama-3-70b --isl 1024 --osl 1024 --tp 8 --batch 64")


def chip_template(identity: str, family: str) -> str:
    """A chip file with the least that a chip needs, and every further field as a comment with its meaning."""
    from dse.catalog.schema import EXAMPLES, kinds

    fields = kinds()["chips"].fields

    def example(name: str, field: Field) -> str:
        if field.unit == "1":
            return f"{name} = {EXAMPLE_COUNTS.get(name, EXAMPLE_DOMAIN)}"
        return f'{name} = "{EXAMPLE_VALUES.get(name, EXAMPLES.get(field.unit, field.unit))}"'

    lines = [
        "# A chip of your own. Plain values are read as assumptions of this file, and named so in reports; what is left out comes",
        '# from the family. With a source: peak_bf16 = { value = 989, unit = "TFLOP/s", source = "datasheet p. 2", kind = "datasheet" }',
        f'id = "{identity}"',
        f'name = "{identity}"',
        f'family = "{family}"',
        'status = "hypothetical"  # existing, announced, hypothetical, retired or claim',
        "",
        "# Example values: put yours in.",
        *(f"{example(name, fields[name])}  # {fields[name].meaning}" for name in EXAMPLE_CHIP),
        "",
        "# More, if you know it:",
        *(f"# {example(name, field)}  # {field.meaning}" for name, field in fields.items() if name not in EXAMPLE_CHIP),
    ]
    return "\n".join(lines) + "\n"


def _deliver(text: str, path: Path | None, as_json: bool) -> None:
    """Print a text, or write it to a new file and print the path."""
    if path is not None:
        if path.exists():
            raise InputError(f"{path}: file — found one that exists, allowed a new name (or remove it)")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"path": path, "text": text})
    else:
        print(text.rstrip("\n") if path is None else path)
