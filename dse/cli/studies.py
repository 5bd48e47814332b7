"""``dse run``, ``dse check`` and ``dse new``: from a study file to its result and report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.cli.common import INFEASIBLE, RESULT_FILE, CatalogOption, Interrupted, JsonOption, StudyArgument, open_catalog, print_json, say
from dse.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from dse.catalog import Catalog
    from dse.study import Study

JOURNAL = "study.journal"
LARGE = 2000  # chips from which on a second process pays for its start
COUNTS = (
    "seed",
    "budget",
    "chips_screened",
    "evaluations",
    "wall_time_s",
    "cpu_time_s",
    "first_look_s",
    "first_look_cpu_s",
    "study_sha256",
    "catalog_sha256",
    "stopped_by",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("run")(run_command)
    app.command("check")(check_command)
    app.command("new")(new_command)


def run_command(
    study: StudyArgument,
    budget: Annotated[int | None, typer.Option("--budget", metavar="N", min=1, help="Chips evaluated over the whole study.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Another seed than the study's.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", metavar="S", min=0, help="Stop after this time, if not before.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start anew and overwrite what is there.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the result; ./reports/NAME by default.")] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="Optuna storage; a journal file in DIR by default.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes; two by default where a study is large and has the cores."),
    ] = None,
    add_chip: Annotated[
        list[str] | None, typer.Option("--add-chip", metavar="ID,...", help="Further real chips: ids or TOML files.")
    ] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the chips of a study; write its result and report."""
    from dse.cli.progress import progress
    from dse.study import read_study

    known = open_catalog(catalog)
    asked = read_study(study, known)
    folder = out or Path("reports") / asked.name
    if resume and force:
        raise InputError("--force — found --resume beside it, allowed one of them")
    chips = [part.strip() for given in add_chip or [] for part in given.split(",") if part.strip()]
    problems = [line for chip in chips for line in _wrong_chip(chip, known)]
    if problems:
        raise InputError(problems)
    count = f"{len(asked.families)} families, {len(asked.real_chips) + len(chips)} real chips, {len(asked.cases)} cases"
    say(f"{asked.name}: {count} -> {folder}")
    from dse.run import run_study

    options: dict[str, Any] = {"budget": budget, "seed": seed, "out": folder, "resume": resume, "force": force, "storage": storage}
    large = (asked.budget if budget is None else budget) >= LARGE and (max_seconds or asked.max_seconds) is None
    processes = workers or (min(2, os.cpu_count() or 1) if large else 1)
    options |= {"workers": processes, "add_chips": chips, "catalog": catalog, "max_seconds": max_seconds}
    try:
        with progress() as report:
            ds = run_study(asked, **options, progress=report, announce=say)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; what is done is kept. Go on with: {_again(study, out, storage, catalog)}") from None
    if asked.kind == "claims":
        _print_claims(ds, folder, as_json)
    else:
        _print_run(ds, asked, folder, as_json)


def _wrong_chip(name: str, catalog: Catalog) -> list[str]:
    """What is wrong with a chip of ``--add-chip``."""
    try:
        catalog.chips[catalog.resolve("chips", name)]
    except InputError as error:
        return [f"--add-chip — {problem}" for problem in error.problems]
    return []


def _again(study: str, out: Path | None, storage: str | None, catalog: Path | None) -> str:
    options = (("--out", out), ("--storage", storage), ("--catalog", catalog))
    return " ".join(["dse run", study, *(f"{name} {value}" for name, value in options if value is not None), "--resume"])


def _print_run(ds: xr.Dataset, study: Study, folder: Path, as_json: bool) -> None:
    """The summary of a run, and where it lies; exit code 3 where nothing is feasible."""
    from dse.report.terminal import summary

    names = (RESULT_FILE, "report.html", "designs.csv", "answers.json", "figures", JOURNAL)
    files = {name.partition(".")[0]: folder / name for name in names if (folder / name).exists()}
    feasible = bool((ds["feasible"] > 0).any())
    if as_json:
        counted = json.loads(str(ds.attrs.get("counts", "{}")))
        counts = {name: ds.attrs.get(name, counted.get(name)) for name in COUNTS if name in ds.attrs or name in counted}
        said = folder / "answers.json"
        counts |= {k: v for k, v in json.loads(said.read_text(encoding="utf-8")).items() if k != "figures"} if said.exists() else {}
        print_json({"study": study.name, "feasible": feasible, **counts, "designs": int(ds.sizes["design"]), "out": folder, "files": files})
    else:
        print(summary(ds))
        print("\n".join(f"{path}" for path in files.values()))
    if not feasible:
        say("no chip of this study meets any of its limits: relax limits.tpot, limits.ttft or limits.max_chips")
        raise typer.Exit(INFEASIBLE)


def _print_claims(ds: xr.Dataset, folder: Path, as_json: bool) -> None:
    """The rows of a study of claims, and where the report lies."""
    from dse.report import claims

    names = (RESULT_FILE, "report.html", "claims.csv", "figures")
    files = {name.partition(".")[0]: folder / name for name in names if (folder / name).exists()}
    if as_json:
        cases = json.loads(ds.attrs.get("cases", "{}"))
        rows = [{**row, "cases": cases.get(row["id"], {})} for row in claims.rows(ds)]
        facts = {name: ds.attrs[name] for name in (*COUNTS, "designs_from") if name in ds.attrs}
        print_json({"study": ds.attrs["study"], **facts, "counts": claims.counts(ds), "rows": rows, "out": folder, "files": files})
    else:
        print(claims.summary(ds))
        print("\n".join(f"{path}" for path in files.values()))


def check_command(study: StudyArgument, catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Check a study file: form, names, chips and design ranges."""
    from dse.study import read_study

    asked = read_study(study, open_catalog(catalog))
    head = asked.headline
    families = list(asked.families)
    if as_json:
        lists = {"families": families, "real_chips": asked.real_chips, "cases": asked.cases, "tpot_limit_s": asked.limits.tpot}
        print_json({"ok": True, "study": asked.name, "path": asked.label, "budget": asked.budget, "seed": asked.seed, **lists})
        return
    print(f"{asked.label}: ok")
    print(f"  families    {', '.join(families) or 'none'}\n  real chips  {', '.join(asked.real_chips) or 'none'}")
    print(f"  cases       {len(asked.cases)} (model, workload, owner's view), {len(asked.limits.tpot)} limits each")
    print(f"  headline    {head.model}, {head.workload}, {head.scenario}, {1e3 * head.tpot:g} ms")
    print(f"  budget      {asked.budget} chips, seed {asked.seed}, sampler {asked.search.sampler}")


def new_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new study.")],
    source: Annotated[str, typer.Option("--from", metavar="STUDY", help="Study to copy: a path or a shipped name.")],
    as_json: JsonOption = False,
    catalog: CatalogOption = None,
) -> None:
    """Copy a study to ./studies/NAME.toml, to change it."""
    from dse.study import new_study

    path = new_study(name, source)
    if as_json:
        print_json({"study": name, "path": path})
    else:
        print(path)
        say(f"change it, then: dse check {name}, dse run {name}")
