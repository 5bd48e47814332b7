"""``dse validate`` and ``dse calibrate``: how far is the model from measurements, and do its constants still fit them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.cli.common import CatalogOption, JsonOption, open_catalog, print_json, say
from dse.errors import InputError

if TYPE_CHECKING:
    from dse.catalog import Catalog

FAILED = 1
COLUMNS = ("level", "op", "chip", "model", "format", "n", "median_abs_error", "p90_abs_error", "bias", "kendall_tau", "with_excluded")
WIDTHS = (9, 32, 24, 18, 11, 6, 8, 8, 8, 8, 14)
SILICON_FOLDER = Path("reports/silicon")
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
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with figures and tables.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every group too: by chip, model and format; and what was asked.")] = False,
    silicon: Annotated[bool, typer.Option("--silicon", help="Instead: rebuild real chips and published costs, and write tables.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the silicon tables.")] = SILICON_FOLDER,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every measured row and compare; with --silicon, area, power and cost of real chips."""
    if silicon:
        validate_silicon(out, open_catalog(catalog), as_json)
        return
    from dse.cli.progress import progress
    from dse.validate import validate

    with progress() as done:
        answer = validate(folder, rows, open_catalog(catalog), report, done)
    if as_json:
        print_json(answer)
    else:
        print(validation_text(answer, every))
        for name, path in (("rows", rows), ("report", report)):
            if path is not None:
                say(f"{name}: {path}")


def validate_silicon(out: Path, catalog: Catalog, as_json: bool) -> None:
    """Write the silicon tables and say what each reached."""
    from dse.validate import silicon

    found = silicon.tables(catalog)
    paths = silicon.write(found, out)
    if as_json:
        print_json({**silicon.as_json(found), "files": paths})
        return
    for table in found:
        print(f"{table.title}\n  asked:   {table.asked}\n  reached: {table.reached}")
    say(f"tables: {paths[-1]}")


def validation_text(answer: Mapping[str, Any], every: bool) -> str:
    """Groups as a table (the margin of each operator, unless ``every``), then what was left out and why."""
    groups = [g for g in answer["groups"] if every or all(g[name] == ANY for name in ("chip", "model", "format"))]
    lines = [_row(COLUMNS)] + [_row([_cell(g.get(name)) for name in COLUMNS]) for g in groups]
    if every:
        lines += ["", *_goals(answer)]
    if answer.get("special"):
        lines += ["", "special chips and claims (prediction with the interval of the fixed time per layer):"]
        lines += [_special(v) for v in answer["special"]]
    skipped = answer.get("skipped", [])
    if skipped:
        lines += ["", f"skipped rows ({sum(s['count'] for s in skipped)}):"]
        lines += [f"  {s['file']}: {s['count']} — {s['reason']}" for s in skipped]
    if answer.get("exclusions"):
        lines += ["", "rows that no honest model should fit, left out of the errors above:"]
        lines += [f"  {e['count']} — {e['reason']}" for e in answer["exclusions"]]
    return "\n".join(lines)


def _special(v: Mapping[str, Any]) -> str:
    """One published figure beside what the model says of it."""
    head = f"  {v['chip']}, {v['model']} ({v['kind']}): {v['measured']:.4g} tok/s published"
    if v["predicted"] is None:
        return f"{head} — {v['verdict']}"
    return f"{head}, {v['predicted']:.4g} predicted ({v['slow']:.4g} to {v['fast']:.4g}), {v['ideal']:.4g} ideal — {v['verdict']}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _goals(answer: Mapping[str, Any]) -> list[str]:
    """Errors by kind beside what was asked, the order, and what lies in the measurements."""
    lines = ["kind                         rows groups  median  asked     p90  asked   (errors in %)"]
    for r in answer["reached"]:
        cells = [_percent(r[k]) for k in ("median", "asked_median", "p90", "asked_p90")]
        lines.append(f"{r['kind']:<26} {r['n']:>6} {r['groups']:>6} " + " ".join(f"{c:>7}" for c in cells))
    lines += [f"Kendall tau, {r['order']}: {r['tau']:.3f} over {r['n']} {r['of']} (asked {r['asked']})" for r in answer["order"]]
    lines += [f"{r['what']}: median {_percent(r['median'])}, p90 {_percent(r['p90'])}, n {r['n']}" for r in answer["not_the_models"]]
    lines += ["how rows are read:", *(f"  {text}" for text in answer["conventions"])]
    return lines


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
    system: Annotated[bool, typer.Option("--system", help="Fit what chips and engines pay beside their kernels, to serving runs.")] = False,
    cross: Annotated[
        Path | None, typer.Option("--cross", metavar="FILE.json", help="Only write errors on unseen chips, models and engines (minutes).")
    ] = None,
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
    if cross is not None:
        _write_cross(calibrate.cross_validate(folder), cross, as_json)
        return
    if system:
        files = calibrate.write_system(folder, catalog)
        print_json({"files": files}) if as_json else print("\n".join(map(str, files)))
        return
    if folder is not None and _calibrate_new(folder, catalog, as_json):
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


def _calibrate_new(folder: Path, place: Path | None, as_json: bool) -> bool:
    """Fit chips that no fit of the shipped plan names; False if the folder has none."""
    from dse import calibrate

    results, plan, found, curves = calibrate.calibrate_new(folder, open_catalog(place))
    if not found:
        return False
    if place is None:
        names = ", ".join(new.on.id for new in found)
        raise InputError(f"--catalog — found none, allowed a folder to put the constants of {names} into")
    files = calibrate.write_newcomers(results, plan, found, place)
    if as_json:
        print_json({"files": files, "rows_of_a_new_chip": curves})
        return True
    for chip, parts in curves.items():
        for part, curve in parts.items():
            print(f"{chip} {part:<30} " + "  ".join(f"{n} rows {_percent(value)} %" for n, value in curve))
    print("\n".join(map(str, files)))
    return True


def _write_cross(found: Mapping[str, Any], path: Path, as_json: bool) -> None:
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if as_json:
        print_json(found)
        return
    for kind, each in found["left_out"].items():
        shown = {name: value for name, value in each.items() if not name.endswith("_p90")}
        tails = {name: f" / {_percent(each[f'{name}_p90'])}" if f"{name}_p90" in each else "" for name in shown}
        print(f"{kind:<24} " + "  ".join(f"{name} left out {_percent(value)}{tails[name]} %" for name, value in shown.items()))
    for chip, n in found["constants_by_chip"].items():
        print(f"{chip:<24} own constants {n['own']}, shared {n['shared']}")
    for kind, each in found["rows_of_a_new_chip"].items():
        print(f"{kind:<24} " + "  ".join(f"{n} rows {_percent(value)} %" for n, value in each))
    for how, order in found["order_of_chips"].items():
        left = "in fit" if how == "fit" else f"{how} left out"
        print(f"Kendall tau, pairs of chips by TPOT, {left}: {order['tau']:.3f} over {order['n']} pairs")
    for s in found["system"]:
        print(
            f"{s['what']:<24} " + "  ".join(f"{k} {_percent(s[k][0])} / {_percent(s[k][1])} %" for k in ("fit", "chip", "model", "engine"))
        )
