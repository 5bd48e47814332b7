"""What does the page say, and in which order? The whole report as one HTML text, without network, scripts or clock.

``build`` returns the text and the files that belong beside it; ``write_report`` in ``__init__`` writes them.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

import matplotlib as mpl
import xarray as xr

from dse.report import breakeven, limits, redesign, regret, sure, tradeoff
from dse.report import draw as D
from dse.report import fronts as F
from dse.report import sections as S
from dse.report import view as V
from dse.report import words as W
from dse.report.answers import answers, lead
from dse.report.page import Page

esc = html.escape

NAVIGATION = (
    ("answer", "Answer"),
    ("cost", "Cost"),
    ("throughput", "Throughput"),
    ("tradeoff", "Three objectives"),
    ("breakdown", "Breakdowns"),
    ("bound", "Limits"),
    ("designs", "Designs"),
    ("matters", "Elasticities"),
    ("limit-map", "Limit map"),
    ("sure-of-ranking", "How sure"),
    ("flips", "Flips"),
    ("regret", "Regret"),
    ("assumptions", "Assumptions"),
    ("sources", "Sources"),
    ("rerun", "Rerun and cite"),
)


def _said(page: Page) -> str:
    """What the report found, for programs: the sentence that it leads with, that of each analysis, and the caption of every figure."""
    ds, first = page.ds, lead(page.ds, page.found)
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    text = first.section.sentence if first else regret.mix_sentence(ds) or W.winner_sentence(ds, v, V.limit_index(v, limit_s))
    found = {"answer": text, "analyses": {a.name: a.section.sentence for a in page.found}, "figures": page.said}
    return json.dumps(found, indent=1, ensure_ascii=False).replace(W.NARROW, " ") + "\n"


def _analysed(page: Page) -> None:
    """What `dse analyse` found."""
    for section in (limits.section, sure.section, redesign.section, breakeven.section, regret.section):
        section(page)


SECTIONS = (
    S.answer,
    S.fronts,
    tradeoff.section,
    S.breakdowns,
    S.bounds,
    S.designs,
    S.certificates,
    S.matters,
    _analysed,
    S.analyses,
    S.sources,
    S.rerun,
)
LED = (
    S.finding,
    S.analyses,
    S.fronts,
    tradeoff.section,
    S.breakdowns,
    S.bounds,
    S.designs,
    S.certificates,
    S.matters,
    _analysed,
    S.sources,
    S.rerun,
)  # an analysis leads


def build(ds: xr.Dataset) -> tuple[str, dict[str, str | bytes]]:
    """The page and the files beside it (relative path -> content): a pure function of the Dataset."""
    with mpl.rc_context(D.STYLE):
        page = Page(ds, list(answers(ds)))
        first = lead(ds, page.found)
        for section in SECTIONS if first is None else LED:
            section(page)
        case, _ = V.headline(ds)
        leading = first.section.drawn[0].canvas if first else None
        canvas = leading or D.front(F.fronts(ds, V.COST, case.scenario, only=case, name="headline"))
        page.files["figures/headline.png"] = D.png(canvas)
    page.files["answers.json"] = _said(page)
    body, rules = D.share_styles("\n".join(page.body))
    named = [(a.name, a.title) for a in page.found]
    order = [*NAVIGATION[:1], *named, *NAVIGATION[1:]] if first else [*NAVIGATION[:-3], *named, *NAVIGATION[-3:]]
    links = "".join(f'<a href="#{esc(key)}">{esc(label)}</a>' for key, label in order if f'id="{esc(key)}"' in body)
    title = esc(str(ds.attrs.get("title", "Design-space study")))
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    question = f'<p class="question">{esc(str(ds.attrs["question"]))}</p>' if ds.attrs.get("question") else ""
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>{css}\n{rules}</style></head>\n<body><h1>{title}</h1>\n{question}\n<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
    return text, page.files
