"""What is known of chips, models, prices and technology, and from where? TOML files to checked records to pytrees.

``load_catalog()`` reads the shipped folder, and over it a folder of the user's; records are checked at once, pytrees built on use.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dse.catalog.loader import Loaded, Records, load_file, load_folder, name_clashes
from dse.catalog.records import Quantity, Record
from dse.errors import InputError, closest
from dse.paths import data_dir

__all__ = ["Catalog", "Quantity", "Record", "load_catalog"]

_FALLBACK_FAMILY = "constants_family"


class Built(Mapping[str, Any]):
    """Pytrees by id, each built from its record when first asked for."""

    def __init__(self, records: Mapping[str, Record], build: Callable[[Record], Any]):
        self._records, self._build = records, build
        self._done: dict[str, tuple[Record, Any]] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._records:
            raise KeyError(f"{key!r}{closest(key, self._records)}")
        record = self._records[key]
        if key not in self._done or self._done[key][0] is not record:
            self._done[key] = (record, self._build(record))
        return self._done[key][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def _builder(module: str, function: str) -> Callable[..., Any]:
    """A builder that is imported when it is first called (builders bring JAX, records do not need it)."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(f"dse.catalog.{module}"), function)(*arguments)

    return call


@dataclass(frozen=True)
class Catalog:
    """Records by kind and id, sources by key, and mappings from id to pytree that are built on first use."""

    records: Records
    sources: dict[str, dict[str, str]]
    files: dict[str, str]  # label of each file -> sha256 of its text

    @cached_property
    def chips(self) -> Mapping[str, Any]:
        return Built(self.records["chips"], lambda record: _builder("chip", "build_chip")(record, self))

    @cached_property
    def models(self) -> Mapping[str, Any]:
        return Built(self.records["models"], _builder("models", "build_model"))

    @cached_property
    def workloads(self) -> Mapping[str, Any]:
        return Built(self.records["workloads"], lambda record: _builder("workloads", "build_workload")(record, self))

    @cached_property
    def prices(self) -> Mapping[str, Any]:
        return Built(self.records["prices"], lambda record: _builder("prices", "build_prices")(record, self))

    @cached_property
    def processes(self) -> Mapping[str, Any]:
        return Built(self.records["processes"], _builder("silicon", "build_process"))

    @cached_property
    def memories(self) -> Mapping[str, Any]:
        return Built(self.records["memories"], _builder("silicon", "build_memory"))

    @cached_property
    def families(self) -> Mapping[str, Any]:
        build = _builder("silicon", "build_family")
        return Built(self.records["families"], lambda record: build(record, self._kernels_of_family(record.id)))

    @cached_property
    def technology(self) -> Any:
        return _builder("silicon", "build_technology")(self.records)

    @cached_property
    def constants(self) -> Mapping[str, Any]:
        return Built(self.records["constants"], lambda record: _builder("kernels", "build_kernels")(record, self.records["constants"]))

    def _kernels_of_family(self, family: str) -> Any:
        return self.constants.get(family)

    @property
    def sha256(self) -> str:
        """Digest of all files that were read, overlays included."""
        text = "\n".join(f"{label} {digest}" for label, digest in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def resolve(self, kind: str, name: str) -> str:
        """The id that ``name`` means: an id, an alias (case ignored), or the path of a TOML file, which is then read as an overlay.

        Raises:
            InputError: nothing has that name (the closest is given), or the file is wrong.
        """
        records = self._of(kind)
        if name in records:
            return name
        aliases = {alias.lower(): record.id for record in records.values() for alias in (record.id, *record.aliases)}
        if name.lower() in aliases:
            return aliases[name.lower()]
        if name.endswith(".toml"):
            return self._read(kind, Path(name))
        known = {**{identity.lower(): identity for identity in records}, **{alias: alias for alias in aliases}}
        raise InputError(f"{kind}: '{name}' — not found, allowed an id, an alias or the path of a TOML file{closest(name.lower(), known)}")

    def _of(self, kind: str) -> dict[str, Record]:
        if kind not in self.records:
            raise InputError(f"catalogue: kind — found '{kind}', allowed {', '.join(self.records)}{closest(kind, self.records)}")
        return self.records[kind]

    def _read(self, kind: str, path: Path) -> str:
        state = Loaded({**self.records, kind: dict(self.records[kind])}, self.sources, dict(self.files))
        record = load_file(path, kind, path.as_posix(), state, overlay=True)
        problems = state.problems + name_clashes({kind: state.records[kind]})
        if problems or record is None:
            raise InputError(problems)
        self.records[kind][record.id] = record
        self.files.update(state.files)
        return record.id

    def constants_of(self, chip_id: str) -> tuple[str, str]:
        """Id of the constants that a chip takes, and how they were found: "chip", "generation", "vendor" or "family"."""
        from dse.catalog.kernels import find_constants

        record = self._of("chips")[self.resolve("chips", chip_id)]
        family = record.meta["family"]
        defaults = self.records["defaults"].get(family)
        return find_constants(record, self.records["constants"], defaults.meta.get(_FALLBACK_FAMILY, family) if defaults else family)

    def filled(self, chip_id: str) -> list[tuple[str, str]]:
        """(leaf of ``types.Chip``, where it came from) for all that the chip's own file does not say."""
        return _builder("chip", "fill_chip")(self._of("chips")[self.resolve("chips", chip_id)], self)[1]


def load_catalog(overlay: str | Path | None = None) -> Catalog:
    """The shipped catalogue, and over it the folder ``overlay``, in which plain strings such as "8 TB/s" are enough.

    Raises:
        InputError: every problem of every file.
    """
    state = Loaded()
    load_folder(data_dir("hw_catalog"), state)
    if overlay is not None:
        folder = Path(overlay)
        if not folder.is_dir():
            raise InputError(f"catalogue: folder — found no folder '{folder}', allowed one that holds chips/*.toml or *.toml")
        load_folder(folder, state, overlay=True)
    if state.problems:
        raise InputError(list(dict.fromkeys(state.problems)))
    return Catalog(state.records, state.sources, state.files)
