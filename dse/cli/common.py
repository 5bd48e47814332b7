"""What do all commands share? Options, one JSON object on stdout, words on stderr, and the catalogue that a command works with."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.errors import DseError, InputError, closest

if TYPE_CHECKING:
    import xarray as xr

    from dse.catalog import Catalog

INFEASIBLE = 3
INTERRUPTED = 130
RESULT_FILE = "result.nc"

CatalogOption = Annotated[
    Path | None, typer.Option("--catalog", metavar="DIR", help="Folder of your own chips, prices ... laid over the shipped catalogue.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Path of a study file, or the name of a shipped one.")]
ResultArgument = Annotated[str, typer.Argument(metavar="RESULT", help="A result.nc, the folder of a run, or the name under ./reports.")]


class Interrupted(DseError):
    """Ctrl-C; the message tells how to go on."""

    exit_code = INTERRUPTED


def plain(value: Any) -> Any:
    """A value as JSON knows it: numpy numbers become numbers, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def print_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of a command, on stdout."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """A line for people beside the product: on stderr."""
    print(text, file=sys.stderr, flush=True)


def open_catalog(folder: Path | None) -> Catalog:
    """The shipped catalogue, with the user's folder over it."""
    from dse.catalog import load_catalog

    return load_catalog(folder)


def result_file(result: str) -> Path:
    """The file of a result: a path, the folder of a run, or the name of a run under ./reports. Raises InputError."""
    given = Path(result)
    for place in (given, given / RESULT_FILE, Path("reports") / result / RESULT_FILE):
        if place.is_file():
            return place
    runs = sorted(path.parent.name for path in Path("reports").glob(f"*/{RESULT_FILE}"))
    allowed = f"a result.nc, the folder of a run, or one of the runs under ./reports: {', '.join(runs) or 'there are none'}"
    raise InputError(f"result — found no file '{result}', allowed {allowed}{closest(result, runs)}")


def open_result(result: str) -> xr.Dataset:
    """The Dataset of a result."""
    from dse.results import load

    return load(result_file(result))
