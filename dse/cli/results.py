"""``dse report``, ``dse explain``, ``dse diff`` and ``dse cite``: what does a result say, and what does a word or a chip mean?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.common import RESULT_FILE, CatalogOption, JsonOption, ResultArgument, open_catalog, open_result, print_json, result_file
from dse.errors import InputError, closest

if TYPE_CHECKING:
    from dse.catalog import Catalog

HOW = "value, 90 % interval, share; what moves it most, with its source"


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("report")(report_command)
    app.command("explain")(explain_command)
    app.command("diff")(diff_command)
    app.command("cite")(cite_command)


def report_command(
    result: ResultArgument,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the report; that of the result by default.")] = None,
    as_json: JsonOption = False,
    catalog: CatalogOption = None,
) -> None:
    """Draw the report of a result again."""
    folder = out or result_file(result).parent
    ds = open_result(result)
    from dse.report import write_report

    name = "claims" if ds.attrs.get("kind") == "claims" else "designs"
    paths = {"report": write_report(ds, folder), name: folder / f"{name}.csv"}
    if as_json:
        print_json(paths)
    else:
        print("\n".join(str(path) for path in paths.values()))


def explain_command(
    subject: Annotated[str, typer.Argument(metavar="TERM|RESULT|ID", help="A name of the glossary or catalogue, a result, or an id.")],
    design: Annotated[str | None, typer.Option("--design", metavar="ID", help="A design of that result.")] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a term, a chip or a design of a result is."""
    if design is not None:
        from dse.report.export import decisions_of, explain_design

        result = open_result(subject)
        text = explain_design(result, design) + design_trees(open_catalog(catalog), *decisions_of(result, design))
    else:
        text = explain_name(subject, catalog)
    if as_json:
        print_json({"subject": subject, "design": design, "text": text})
    else:
        print(text)


def explain_name(subject: str, folder: Path | None) -> str:
    """The glossary's words for a term; else a field or an entry of the catalogue. Raises InputError with the closest of all names."""
    from dse import glossary
    from dse.catalog.schema import kinds

    try:
        return glossary.explain(subject)
    except InputError:
        fields = [(kind.name, kind.fields[subject]) for kind in kinds().values() if subject in kind.fields]
        words = [(kind.name, kind.meta[subject]) for kind in kinds().values() if subject in kind.meta]
    if fields or words:
        lines = [f"{subject}: field of {kind} — {spec.meaning} [{spec.unit}]" for kind, spec in fields]
        return "\n".join(lines + [f"{subject}: field of {kind} — {meaning}" for kind, meaning in words])
    if subject.endswith(".nc"):
        raise InputError(f"explain — found the result '{subject}' alone, allowed one of its designs: --design ID")
    from dse.cli.catalogue import find_record, record_text

    catalog = open_catalog(folder)
    known = glossary.load()
    found = find_record(catalog, subject)
    if found is None and subject.endswith(".toml"):
        found = "chips", catalog.resolve("chips", subject)
    if found is None:
        ids = [identity for records in catalog.records.values() for identity in records]
        near = _result_hint(subject) or closest(subject, [*known.entries, *known.components, *known.families, *known.formats, *ids])
        raise InputError(f"explain — found '{subject}', allowed a name of the glossary or an id of the catalogue{near}")
    return record_text(catalog, *found) + (chip_trees(catalog, found[1]) if found[0] == "chips" else "")


def chip_trees(catalog: Catalog, chip: str) -> str:
    """Where area, power and cost of a chip come from: by its published design variables where they are known, else by its datasheet."""
    from dse.validate.silicon import trees

    if trees.design_of(catalog, chip) is not None:
        return f"\n\nrebuilt from its published design variables ({HOW}):\n{trees.text(catalog, chip)}"
    found = trees.datasheet_text(catalog, chip)
    return f"\n\nby its datasheet and the constants of the catalogue ({HOW}):\n{found}" if found else ""


def design_trees(catalog: Catalog, family: str, chip: str, decisions: Mapping[str, float | str]) -> str:
    """The same of a design of a result; of a hypothetical one by its decisions and the catalogue of today."""
    from dse.validate.silicon import trees

    if chip in catalog.records["chips"]:
        return chip_trees(catalog, chip)
    try:
        found = trees.design_text(catalog, family, decisions)
    except InputError as error:
        return f"\n\nthe catalogue of today does not build this design: {error.problems[0]}"
    return f"\n\nby its decisions and the constants of the catalogue of today ({HOW}):\n{found}"


def _result_hint(subject: str) -> str:
    """How to ask about a study or a result whose name was given alone."""
    from dse.study import shipped_studies

    if subject not in shipped_studies() and not (Path(subject) / RESULT_FILE).exists():
        return ""
    return f"; of the study: dse check {subject}; of a design of its result: dse explain {subject} --design ID (designs.csv has them)"


def diff_command(
    a: Annotated[str, typer.Argument(metavar="A", help="A result.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another result.")],
    as_json: JsonOption = False,
    catalog: CatalogOption = None,
) -> None:
    """What changed from one result to another."""
    from dse.report import claims
    from dse.report.export import diff

    first, second = open_result(a), open_result(b)
    of_claims = [ds.attrs.get("kind") == "claims" for ds in (first, second)]
    if any(of_claims) and not all(of_claims):
        raise InputError("diff — found a result of claims and one of a search, allowed two of one kind")
    text = claims.diff(first, second) if all(of_claims) else diff(first, second)
    if as_json:
        print_json({"a": result_file(a), "b": result_file(b), "differences": text.splitlines()})
    else:
        print(text or "no difference")


def cite_command(result: ResultArgument, as_json: JsonOption = False, catalog: CatalogOption = None) -> None:
    """BibTeX of the sources that a result uses."""
    from dse.report.export import cite

    text = cite(open_result(result))
    if as_json:
        print_json({"result": result_file(result), "bibtex": text})
    else:
        print(text)
