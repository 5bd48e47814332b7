"""Which files are in a catalogue folder, and do they hold together? All problems of all files come in one InputError."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dse.catalog.bib import read_bib
from dse.catalog.records import Reader, Record, incomplete, read_record
from dse.catalog.schema import kinds
from dse.errors import closest

Records = dict[str, dict[str, Record]]
FOLDERS = {"defaults": "chips/_defaults"}


@dataclass
class Loaded:
    """Records by kind and id, sources by key, a digest of each file, and what was wrong."""

    records: Records = field(default_factory=lambda: {name: {} for name in kinds()})
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load_folder(folder: Path, into: Loaded, overlay: bool = False) -> None:
    """Read ``folder/KIND/*.toml`` (in an overlay also ``folder/*.toml``) into ``into``; problems are noted there."""
    bib = folder / "sources.bib"
    if bib.is_file():
        text = bib.read_text(encoding="utf-8")
        entries, problems = read_bib(text, f"{folder.name}/sources.bib")
        into.sources.update(entries)
        into.problems.extend(problems)
        _note(into, f"{folder.name}/sources.bib", text)
    for kind, path in _files(folder):
        load_file(path, kind, f"{folder.name}/{path.relative_to(folder).as_posix()}", into, overlay)
    if overlay:
        for path in sorted(folder.glob("*.toml")):
            load_file(path, None, f"{folder.name}/{path.name}", into, overlay)
    into.problems.extend(name_clashes(into.records))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for kind in kinds():
        yield from ((kind, path) for path in sorted((folder / FOLDERS.get(kind, kind)).glob("*.toml")) if not path.name.startswith("_"))


def _note(into: Loaded, label: str, text: str) -> None:
    into.files[label] = hashlib.sha256(text.encode()).hexdigest()


def load_file(path: Path, kind: str | None, label: str, into: Loaded, overlay: bool) -> Record | None:
    """Read one file of a kind (None: the file says ``kind = ...``, or is a chip if it has a family)."""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        into.problems.append(f"{label}: file — cannot be read: {error}")
        return None
    kind = kind or table.get("kind") or ("chips" if "family" in table else None)
    if kind not in kinds():
        into.problems.append(f"{label}: kind — found {kind!r}, allowed {', '.join(kinds())}{closest(str(kind), kinds())}")
        return None
    if overlay:
        table.setdefault("id", path.stem)
    reader = Reader(label, kinds()[kind], into.sources, overlay, into.problems)
    record = read_record(table, reader)
    if record is None:
        return None
    known = into.records[kind].get(record.id)
    if known is not None and not overlay:
        into.problems.append(f"{label}: id — found '{record.id}', which {known.file} has too, allowed an id of its own")
    record = _merge(known, record) if known is not None and overlay else record
    into.problems.extend(incomplete(record, kinds()[kind]))
    into.records[kind][record.id] = record
    _note(into, label, text)
    return record


def _merge(below: Record, above: Record) -> Record:
    """A shipped record with the fields of an overlay's file of the same id laid over it."""
    name = above.meta.get("name", below.name)
    return replace(above, name=name, meta={**below.meta, **above.meta}, values={**below.values, **above.values})


def name_clashes(records: Records) -> list[str]:
    """Ids and aliases are unique over a kind, whatever their case."""
    problems = []
    for kind in records.values():
        owner = {identity.lower(): record for identity, record in kind.items()}
        for record in kind.values():
            for alias in record.aliases:
                other = owner.setdefault(alias.lower(), record)
                if other.id != record.id:
                    problems.append(f"{record.file}: aliases — found '{alias}', which {other.file} has too, allowed names of its own")
    return problems
