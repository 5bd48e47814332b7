"""Where does a study lie? Paths, names in ./studies, names of shipped studies; and a copy of one to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from dse.errors import InputError, closest
from dse.paths import data_dir
from dse.study.read import parse_study
from dse.study.record import Study

if TYPE_CHECKING:
    from dse.catalog import Catalog
from dse.study.values import is_name


def shipped_studies() -> dict[str, Path]:
    """The studies that come with the package: name -> file."""
    return {path.stem: path for path in sorted(data_dir("studies").glob("*.toml"))}


def find_study(path_or_name: str | Path) -> Path:
    """The file of a study: a path, a name in ./studies, or the name of a shipped study. Raises InputError."""
    given = Path(path_or_name)
    own = Path("studies") / f"{given}.toml"
    for place in (given, own):
        if place.is_file():
            return place
    shipped = shipped_studies()
    if str(given) in shipped:
        return shipped[str(given)]
    if given.suffix == ".toml" or len(given.parts) > 1:
        raise InputError(f"study: file — found no file '{given}', allowed the path of a TOML file or one of {', '.join(shipped)}")
    known = [*shipped, *(path.stem for path in Path("studies").glob("*.toml"))]
    listed = ", ".join(dict.fromkeys(known))
    raise InputError(f"study: name — found '{given}', allowed a path or one of {listed}{closest(str(given), known)}")


def _label(path: Path) -> str:
    inside = path.is_relative_to(data_dir("studies"))
    return f"studies/{path.name}" if inside else path.as_posix()


def read_study(path_or_name: str | Path, catalog: Catalog | None = None) -> Study:
    """The study of that path or name, checked in itself, and its names against a catalogue where one is given (as ``check_study``).

    Raises:
        InputError: no such file, or every mistake of it, one line each.
    """
    path = find_study(path_or_name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: file — cannot be read: {error}") from error
    return parse_study(text, path.resolve(), _label(path), catalog)


def new_study(name: str, source: str | Path, folder: Path = Path("studies")) -> Path:
    """Copy a study to ``folder/NAME.toml`` under its new name; returns the path. Raises InputError (also if the file exists)."""
    if not is_name(name):
        raise InputError(f"study: name — found {name!r}, allowed letters, digits, '-', '_' and '.'")
    text = read_study(source).text
    path = folder / f"{name.removesuffix('.toml')}.toml"
    if path.exists():
        raise InputError(f"{path}: file — found one that exists, allowed a new name (or remove it)")
    line = f'name = "{path.stem}"'
    renamed, count = re.subn(r"(?m)^name\s*=.*$", line, text, count=1)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(renamed if count else f"{line}\n{text}", encoding="utf-8")
    return path
