"""What is a page made of? Its record, a figure with caption and folds, and the files beside it; sections are made of these."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import tables as T
from dse.report import view as V
from dse.report.answers import Answer
from dse.report.methods import METHODS

esc = html.escape


@dataclass
class Page:
    """Text of the page so far, the files beside it (relative path -> content), and what its analyses say."""

    ds: xr.Dataset
    found: list[Answer] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)  # caption of every figure
    body: list[str] = field(default_factory=list)
    files: dict[str, str | bytes] = field(default_factory=dict)
    listed: bool = False  # whether the assumptions that count stand on the page already

    def add(self, *blocks: str) -> None:
        self.body += [b for b in blocks if b]


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text; the columns are those of the first row and what later ones add."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def fold(title: str, content: str) -> str:
    """A part of the page that opens on a click."""
    return f"<details><summary>{title}</summary>{content}</details>"


def _definitions(names: list[str]) -> str:
    entries = [e for n in names if (e := glossary.find(n))]
    parts = [glossary.load().components[n] for n in names if not glossary.find(n) and n in glossary.load().components]
    items = [f"<dt>{esc(glossary.axis(e.name))}</dt><dd>{esc(e.definition)}</dd>" for e in entries]
    return "<dl>" + "".join(items + [f"<dt>{esc(p.label)}</dt><dd>{esc(p.definition)}</dd>" for p in parts]) + "</dl>"


def _method(kind: str, names: list[str]) -> str:
    equations = [f"<li>{esc(e.label)} = <code>{esc(e.equation)}</code></li>" for n in names if (e := glossary.find(n)) and e.equation]
    return f"<p>{esc(METHODS.get(kind, kind))}</p>" + (f"<ul>{''.join(equations)}</ul>" if equations else "")


def _used(page: Page) -> str:
    """The values that move the winner's cost; the table stands under the first figure, the others point to it."""
    every = '<p>All values: <a href="#assumptions">assumptions</a>.</p>'
    if page.listed:
        return f'<p>The values that move the winner\'s cost: <a href="#used">table</a>.</p>{every}'
    page.listed = True
    case, limit_s = V.headline(page.ds)
    v = V.view(page.ds, case)
    ranking = V.winners(v, V.limit_index(v, limit_s))
    rows = V.attr(page.ds, "assumptions", [])
    effect = V.effects(page.ds, case, ranking[0][0]) if ranking else {}
    lead = [r for r in rows if r["name"] in effect] or rows[:12]
    used = T.assumptions(page.ds, lead, case, ranking[0][0] if ranking else None) if lead else "<p>None recorded.</p>"
    return f'<div id="used">{used}</div>{every}'


def folds(page: Page, kind: str, names: list[str], name: str, drawn: bool = True) -> str:
    """The four folds under a figure: definition, method and equation, assumptions used, data. ``kind``: of ``METHODS``, or the text."""
    links = f'<a href="figures/{name}.csv">{name}.csv</a>' + (f', <a href="figures/{name}.svg">{name}.svg</a>' if drawn else "")
    return (
        '<div class="folds">'
        + (fold("Definition", _definitions(names)) if names else "")
        + fold("Method and equation", _method(kind, names))
        + fold("Assumptions used", _used(page))
        + fold("Data", f"<p>{links}</p>")
        + "</div>"
    )


def figure(page: Page, record: Any, drawer: Callable[[Any], D.Canvas], kind: str, names: list[str], under: str = "") -> str:
    """One figure with caption and folds; its SVG and CSV are put beside the page."""
    canvas = drawer(record)
    page.said[record.name] = record.caption
    drawing = D.svg(canvas)
    page.files[f"figures/{record.name}.svg"] = D.file_svg(drawing)
    page.files[f"figures/{record.name}.csv"] = csv_text(record.rows)
    note = f'<p class="under">{under}</p>' if under else ""
    return (
        f'<figure><div class="drawing">{D.inline(drawing, record.alt)}</div><figcaption>{esc(record.caption)}</figcaption>{note}</figure>'
        + folds(page, kind, names, record.name)
    )
