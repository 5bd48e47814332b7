"""How are the silicon tables written? One CSV a table with full numbers, one page of Markdown for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dse.validate.silicon.table import Table

INTRO = (
    "# Silicon and money against published figures",
    "Written by `dse validate --silicon`. Design variables and constants of vendors: `hw_catalog/rebuild`; published results: "
    "`hw_catalog/chips`; constants: "
    "`hw_catalog/technology`, `processes`, `memories`, `families`. No constant belongs to one chip. "
    "`error` is predicted over published less 1; `within` compares it with what was asked.",
)
SHARES = ("error", "allowed", "error, not left out")
EMPTY = "–"


def write(found: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in found:
        path = folder / f"{table.name}.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = csv.DictWriter(stream, table.columns, lineterminator="\n")
            out.writeheader()
            out.writerows([{name: _plain(value) for name, value in row.items()} for row in table.rows])
        paths.append(path)
    page = folder / "silicon.md"
    page.write_text(markdown(found), encoding="utf-8")
    return [*paths, page]


def _plain(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def markdown(found: Sequence[Table]) -> str:
    """All tables as one page."""
    overview = ["| table | asked | reached |", "|---|---|---|"]
    overview += [f"| [{t.title}](#{t.name.replace('_', '-')}) | {t.asked} | {t.reached} |" for t in found]
    parts = ["\n\n".join(INTRO), "\n".join(overview)]
    for table in found:
        parts.append(f'<a id="{table.name.replace("_", "-")}"></a>\n\n## {table.title}')
        parts.append(f"Asked: {table.asked}. Reached: {table.reached}.")
        head = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
        body = ["| " + " | ".join(_cell(name, row.get(name)) for name in table.columns) + " |" for row in table.rows]
        parts += ["\n".join(head + body), "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if name in SHARES:
        return f"{value:.0%}" if name == "allowed" else f"{value:+.1%}"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}" if isinstance(value, float) else str(value)


def as_json(found: Sequence[Table]) -> dict[str, Any]:
    """All tables as one object."""
    return {
        "tables": [
            {"name": t.name, "title": t.title, "asked": t.asked, "reached": t.reached, "rows": t.rows, "notes": t.notes} for t in found
        ]
    }
