"""``dse certify``: how far can a family's cheapest chip be from the cheapest there is, and is a certificate true?"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from dse.cli.common import CatalogOption, JsonOption, open_catalog, print_json
from dse.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command("certify")(certify_command)


def certify_command(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="Path, or name of a shipped study.")] = None,
    family: Annotated[str | None, typer.Option("--family", metavar="NAME", help="One family; all of the study by default.")] = None,
    limit: Annotated[str | None, typer.Option("--limit", metavar="TIME", help="On time per output token (the headline's), or all.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0, help="Of computing for each proof, compilation apart.")] = 60.0,
    boxes: Annotated[int | None, typer.Option("--boxes", metavar="N", min=1, help="Cut at most so many for each proof.")] = None,
    finish: Annotated[bool, typer.Option("--finish/--no-finish", help="Polish the optimum and say what its limits are worth.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Prove again what --out holds already.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the certificates there.")] = None,
    check: Annotated[Path | None, typer.Option("--check", metavar="FILE", help="Verify a certificate instead.")] = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="DIR", help="Write README.md of the certificates there.")] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove how near a study's cheapest designs are to the optimum of the model."""
    from dse import certificates
    from dse.study import read_study

    known = open_catalog(catalog)
    if check is not None:
        _check(check, known, as_json)
        return
    if table is not None:
        _table(table)
        return
    if study is None:
        raise InputError("STUDY — found nothing, allowed a study, or --check FILE")
    asked = read_study(study, known)
    found = []
    for name in [family] if family else list(asked.families):
        problem = certificates.problem_of(asked, known, name, asked.headline.tpot)
        limits_s = sorted(_limits(limit, asked))
        starts = certificates.bred_starts(problem, asked, limits_s) if seconds else []
        # what is good enough for a tighter limit starts the proof of the next one, too
        for limit_s in limits_s:
            path = None if out is None else out / f"{asked.name}-{name}-{1e3 * limit_s:g}ms.json"
            old = None if path is None or not path.exists() else certificates.still_good(path, asked, known)
            if old is not None and not force and certificates.is_done(old):
                c = old
            else:
                starts += [] if old is None or old.design is None or old.layout is None else [(old.design, old.layout)]
                at = replace(problem, limit_s=limit_s)
                c = certificates.certificate_of(at, asked, known, seconds, boxes or certificates.BOXES, starts, finish)
                c = old if old is not None and (old.gap or 2.0) < (c.gap or 2.0) else c
            starts += [] if c.design is None or c.layout is None else [(c.design, c.layout)]
            found.append(c)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                certificates.write(c, path)
            if not as_json:
                _line(c)
    if as_json:
        print_json({"certificates": [{k: v for k, v in asdict(c).items() if k != "trees"} for c in found]})


def _limits(text: str | None, study) -> list[float]:
    if text is None:
        return [study.headline.tpot]
    return list(study.limits.tpot) if text == "all" else [_time(part) for part in text.split(",")]


def _time(text: str) -> float:
    """A time like ``10ms`` in seconds."""
    from dse.units import to_si

    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzµ ")
    try:
        return to_si(float(digits), text[len(digits) :].strip() or "s")
    except ValueError:
        raise InputError(f"--limit — found {text!r}, allowed a time such as 10ms") from None


def _line(c) -> None:
    usd = "none found" if c.optimum is None else f"{c.optimum:.4f}"
    gap = "-" if c.gap is None else f"{c.gap:.2%}"
    bound = "none" if c.bound is None else f"{c.bound:.4f}"
    head = f"{c.family:18s} {1e3 * c.tpot_limit_s:5g} ms: optimum {usd}, bound {bound} USD/Mtoken, gap {gap}"
    print(f"{head}, {c.boxes:,} boxes, {c.seconds:.1f} s", flush=True)


def _table(folder: Path) -> None:
    from dse import certificates

    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise InputError(f"{folder}: certificates — found none, allowed a folder that `dse certify --out` wrote")
    text = certificates.gap_table([certificates.read(path) for path in paths])
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(text)


def _check(path: Path, catalog, as_json: bool) -> None:
    from dse import certificates

    c = certificates.read(path)
    problems = certificates.verify(c, certificates.study_of(c, catalog), catalog)
    if as_json:
        print_json({"ok": not problems, "file": path, "problems": problems})
    elif not problems:
        _line(c)
        print(f"{path}: true")
    if problems:
        raise InputError([f"{path}: {p}" for p in problems])
