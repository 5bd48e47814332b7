"""``dse validate`` and ``dse calibrate``: how far is the model from measurements, and do its constants still fit them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dse.cli.common import CatalogOption, JsonOption, open_catalog, print_json, say

FAILED = 1
COLUMNS = ("level", "op", "chip", "model", "format", "n", "median_abs_error", "p90_abs_error", "bias", "kendall_tau", "with_excluded")
WIDTHS = (9, 32, 24, 18, 11, 6, 8, 8, 8, 8, 14)
ANY = "*"  # a margin over all values of a field

DirArgument = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of CSV files; the shipped measurements by default.")]
RowsOption = Annotated[Path | None, typer.Option("--rows", metavar="FILE.csv", help="Write one line for each measured row.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("validate")(validate_command)
    app.command("calibrate")(calibrate_command)


def validate_command(
    folder: DirArgument = None,
    rows: RowsOption = None,
    every: Annotated[bool, typer.Option("--all", help="Print every group: by chip, model and format too.")] = False,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every measured row and compare."""
    from dse.validate import validate

    answer = validate(folder, rows, open_catalog(catalog))
    if as_json:
        print_json(answer)
    else:
        print(validation_text(answer, every))
        if rows is not None:
            say(f"rows: {rows}")


def validation_text(answer: Mapping[str, Any], every: bool) -> str:
    """Groups as a table (the margin of each operator, unless ``every``), then what was left out and why."""
    groups = [g for g in answer["groups"] if every or all(g[name] == ANY for name in ("chip", "model", "format"))]
    lines = [_row(COLUMNS)] + [_row([_cell(g.get(name)) for name in COLUMNS]) for g in groups]
    skipped = answer.get("skipped", [])
    if skipped:
        lines += ["", f"skipped rows ({sum(s['count'] for s in skipped)}):"]
        lines += [f"  {s['file']}: {s['count']} — {s['reason']}" for s in skipped]
    if answer.get("exclusions"):
        lines += ["", "rows that no honest model should fit, left out of the errors above:"]
        lines += [f"  {e['count']} — {e['reason']}" for e in answer["exclusions"]]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    numbers = COLUMNS.index("n")
    heads = [name.replace("_abs_error", "").replace("kendall_", "") for name in cells]
    return " ".join(f"{c:>{w}}" if i >= numbers else f"{c:<{w}}" for i, (c, w) in enumerate(zip(heads, WIDTHS, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):  # the errors with the excluded rows in: their median
        value = value["median_abs_error"]
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def calibrate_command(
    folder: DirArgument = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the committed constants with a new fit; exit 1 if they differ.")
    ] = False,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the constants of kernels and links to measured operators, and write them into the catalogue (that of --catalog, if given)."""
    from dse import calibrate

    if check:
        differences = calibrate.check(folder)
        if as_json:
            print_json({"ok": not differences, "differences": differences})
        else:
            print("\n".join(differences) or "ok: the constants are those of a new fit")
        if differences:
            raise typer.Exit(FAILED)
        return
    results = calibrate.calibrate(folder)
    files = calibrate.write(results, catalog)
    table = {f"{fitted.fit.path} {chip}": vars(residual) for fitted in results for chip, residual in fitted.residuals.items()}
    if as_json:
        print_json({"files": files, "residuals": table})
        return
    for name, residual in table.items():
        print(f"{name:<44} n {residual['n']:>5}  median {residual['median']:>6.1%}  p90 {residual['p90']:>6.1%}")
    print("\n".join(str(path) for path in files))
