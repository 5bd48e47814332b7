"""``dse analyse``: what matters in a result, what would flip it, how sure it is; written into the result, and its report drawn again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dse.cli.common import CatalogOption, JsonOption, ResultArgument, open_catalog, open_result, print_json, result_file
from dse.errors import InputError, closest


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command("analyse")(analyse_command)


def analyse_command(
    result: ResultArgument,
    what: Annotated[str, typer.Option("--what", metavar="NAME,...", help="Analyses to run; all by default.")] = "",
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the samples; that of the result by default.")] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, max=2, help="Processes, 1 or 2; 2 by default.")] = 2,
    as_json: JsonOption = False,
    catalog: CatalogOption = None,
) -> None:
    """Analyse a result in full: elasticities, limits, uncertainty, designs searched anew, break-evens and flips, regret (minutes)."""
    from dse.analyse import WHAT, analyse
    from dse.cli.progress import progress
    from dse.report import write_report
    from dse.report.findings import findings
    from dse.results import save

    asked = tuple(w.strip() for w in what.split(",") if w.strip()) if what not in ("", "all") else WHAT
    wrong = [w for w in asked if w not in WHAT]
    if wrong or not asked:
        raise InputError(
            f"--what — found {', '.join(wrong) or 'nothing'}, allowed all, {', '.join(WHAT)}{closest(wrong[0], WHAT) if wrong else ''}"
        )
    path, start = result_file(result), time.process_time()
    with progress() as report:
        ds = analyse(open_result(result), open_catalog(catalog), asked, seed, report, workers, None if catalog is None else str(catalog))
    save(ds, path)
    page = write_report(ds, path.parent)
    said = findings(ds, asked)
    if as_json:
        print_json({"result": path, "report": page, "what": list(asked), "cpu_s": round(time.process_time() - start, 2), **said})
        return
    for name, entry in said.items():
        print(f"{name}: {entry['said']}")
    print(page)
