"""Which questions of our readers are answered, where, and what is the answer? Writes reports/README.md from questions.toml and the reports.

``python tools/questions.py`` rewrites the page; with ``--check`` it only compares and exits 1 where they differ. A question that names a
study must find its figure in the committed report; what is said is the sentence of the analysis, or the caption of the figure.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Reports

What the shipped studies found. Each folder holds `report.html` (start there), `designs.csv`, figures, and `answers.json` with every
sentence. `dse run NAME` computes a study again; this page is written by `make questions` from the reports, never by hand.

| study | what it found |
|---|---|
"""
MIDDLE = """
## Thirty questions, ten of each reader

Sentences are computed; brackets are 90 % ranges over samples of every uncertain input. Where assumptions can only be worse than their
stated values, the median of the samples stands for the figure, and the bracket also says what it is at the stated values. An architecture
that is not a GPU rests on assumed constants.
"""


def read(path: Path = ROOT / "tools" / "questions.toml") -> list[dict[str, Any]]:
    """The questions."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["questions"]


def answers(reports: Path) -> dict[str, dict[str, Any]]:
    """What every report beside says."""
    return {p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in sorted(reports.glob("*/answers.json"))}


def answer(q: dict[str, Any], found: dict[str, dict[str, Any]]) -> str:
    """One cell of the table: sentence and figure, or command and reason."""
    study, figure = q.get("study"), q.get("figure")
    if study in found and figure in found[study]["figures"]:
        said = found[study]["analyses"].get(q.get("analysis", ""), found[study]["figures"][figure])
        return f"{said} [{study}/{figure}]({study}/report.html)"
    if study:
        return f"`dse run {study}`: figure {figure} (not in the committed reports)"
    command = f"`{q['command']}`: " if q.get("command") else ""
    return command + q["why"]


def page(questions: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    lines = [HEAD + "\n".join(f"| [{name}]({name}/report.html) | {x['answer']} |" for name, x in found.items()), MIDDLE]
    for reader in dict.fromkeys(q["reader"] for q in questions):
        lines += [f"### {reader}\n", "| | question | answer |", "|---:|---|---|"]
        lines += [f"| {q['number']} | {q['text']} | {answer(q, found)} |" for q in questions if q["reader"] == reader]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    target = ROOT / "reports" / "README.md"
    text = page(read(), answers(ROOT / "reports"))
    if "--check" in sys.argv:
        return int(not target.exists() or target.read_text(encoding="utf-8") != text)
    target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
