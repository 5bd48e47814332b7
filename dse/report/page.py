"""What does the page say, and in which order? The whole report as one HTML text, without network, scripts or clock.

``build`` returns the text and the files that belong beside it; ``write_report`` in ``__init__`` writes them.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import fronts as F
from dse.report import info as I
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W
from dse.report import worth
from dse.report.answers import Answer, answers, lead

esc = html.escape

METHODS = {
    "front": (
        "Each chip is offered every layout, batch and format on a grid; for each promise on the time per token its cheapest feasible "
        "layout is kept. A line joins the designs of one family that no other design of it beats in both axes; between two of them it "
        "guides the eye only. Hollow marks are chips that exist, at the promise of the dashed vertical line or as near to it as they come; "
        "their thin lines are their own fronts "
        "(dotted: known from claims only). "
        "Stars are measurements; on the cost axis they stand at the measured throughput and this model's cost of a chip-hour. "
        "Dashed lines use weights below 4 bit."
    ),
    "bars": "Each family's cheapest design at three promises of the headline case; shares in per cent; the whole stands at the right.",
    "bound": "The largest part of the decoding step of each family's cheapest design. Framed: the cheapest family of that promise.",
    "elasticity": (
        "Exact derivatives of the logarithm of the cost at each family's winner, layout held fixed: "
        "after a large change another layout may be cheaper, so that costs rise less and fall more."
    ),
    "probability": (
        "Every uncertain number of the catalogue is drawn from its interval (lognormal, or triangular for shares and one-sided intervals; "
        "low and high are its 5 and 95 % quantiles), all at once; the designs of the fronts are built anew from each draw and choose "
        "anew among the layouts of the fronts. Shared numbers move all families together. Designs are not searched anew, and the error "
        "of the model's form is in it only as far as the fitted constants' intervals carry it."
    ),
    "limits": (
        "Each family's winner at three promises keeps its layout while context and batch vary. Memory is full where weights and cache do "
        "not fit; power binds where the chip would be faster with a higher thermal design power; else the largest part of the time per "
        "token binds (with a p-norm, its share is the elasticity of the time to that resource)."
    ),
    "redesign": "The same samples twice: with the designs of the fronts, and with chips bred anew from them under the drawn values.",
    "flips": (
        "Every assumption is multiplied alone while designs and layouts are chosen anew among those of the front; where the sign of the "
        "lead changes, the bracket is cut until the multiple is known to a thousandth. "
        "A full search at the flip may find designs that hold out longer: the three nearest are checked."
    ),
    "regret": "Every design in its best layout for every case, at the headline's promise and owner; without burned-in designs.",
    "bands": "Bands hold 50 and 90 % of the samples, the line is the median; grey lines are the medians of the other panels.",
    "variance": (
        "Sobol indices by Saltelli's design over groups of inputs: the bar is what an input explains alone, the tick what it takes part in."
    ),
}


@dataclass
class Page:
    """Text of the page so far, the files beside it (relative path -> content), and what its analyses say."""

    ds: xr.Dataset
    found: list[Answer] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)  # caption of every figure
    body: list[str] = field(default_factory=list)
    files: dict[str, str | bytes] = field(default_factory=dict)

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


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


def _definitions(names: list[str]) -> str:
    entries = [e for n in names if (e := glossary.find(n))]
    parts = [glossary.load().components[n] for n in names if not glossary.find(n) and n in glossary.load().components]
    items = [f"<dt>{esc(glossary.axis(e.name))}</dt><dd>{esc(e.definition)}</dd>" for e in entries]
    return "<dl>" + "".join(items + [f"<dt>{esc(p.label)}</dt><dd>{esc(p.definition)}</dd>" for p in parts]) + "</dl>"


def _method(kind: str, names: list[str]) -> str:
    equations = [f"<li>{esc(e.label)} = <code>{esc(e.equation)}</code></li>" for n in names if (e := glossary.find(n)) and e.equation]
    return f"<p>{esc(METHODS.get(kind, kind))}</p>" + (f"<ul>{''.join(equations)}</ul>" if equations else "")


def folds(page: Page, kind: str, names: list[str], name: str, drawn: bool = True) -> str:
    """The four folds under a figure: definition, method and equation, assumptions used, data. ``kind``: of ``METHODS``, or the text."""
    case, limit_s = V.headline(page.ds)
    v = V.view(page.ds, case)
    ranking = V.winners(v, V.limit_index(v, limit_s))
    rows = V.attr(page.ds, "assumptions", [])
    effect = V.effects(page.ds, case, ranking[0][0]) if ranking else {}
    lead = [r for r in rows if r["name"] in effect] or rows[:12]
    used = T.assumptions(page.ds, lead, case, ranking[0][0] if ranking else None) if lead else "<p>None recorded.</p>"
    links = f'<a href="figures/{name}.csv">{name}.csv</a>' + (f', <a href="figures/{name}.svg">{name}.svg</a>' if drawn else "")
    return (
        '<div class="folds">'
        + (_fold("Definition", _definitions(names)) if names else "")
        + _fold("Method and equation", _method(kind, names))
        + _fold("Assumptions used", f'{used}<p>All values: <a href="#assumptions">assumptions</a>.</p>')
        + _fold("Data", f"<p>{links}</p>")
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


# --- sections ------------------------------------------------------------------------------------------------------


def _finding(page: Page) -> None:
    """The answer of a study whose report leads with an analysis; who wins is the second sentence."""
    ds, first = page.ds, lead(page.ds, page.found)
    if first is None:
        return
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    page.add(
        '<section class="answer" id="answer">',
        f'<p class="first">{esc(first.section.sentence)}</p>',
        *(f"<p>{esc(a.section.sentence)}</p>" for a in page.found if a is not first),
        f'<p class="sure">{esc(W.evidence_sentence(ds, v, V.limit_index(v, limit_s)))}</p>',
        f'<p class="sure">{esc(V.case_name(ds, case))}. Owner\'s view: {esc(V.name_of(ds, case.scenario))}. '
        f"{T.scenario_line(ds, case.scenario)} {esc(W.first_token_sentence(ds))}</p>",
        "</section>",
    )


def _analyses(page: Page) -> None:
    """Every analysis of the study: its finding, figures and tables."""
    for a in page.found:
        page.add(f'<h2 id="{esc(a.name)}">{esc(a.title)}</h2>', f"<p>{esc(a.section.sentence)}</p>")
        for d in a.section.drawn:
            page.add(figure(page, d, lambda drawn: drawn.canvas, a.section.method, list(d.names)))
        page.add(*a.section.blocks)


def _answer(page: Page) -> None:
    ds = page.ds
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    limit = V.limit_index(v, limit_s)
    evidence, survival = W.evidence_sentence(ds, v, limit), W.survival(ds, v, limit)
    points = "".join(f"<li>{esc(x)}</li>" for x in survival)
    sure = f"<p>{esc(evidence)}</p>" + (f"<ul>{points}</ul>" if points else "")
    page.add(
        '<section class="answer" id="answer">',
        f'<p class="first">{esc(W.winner_sentence(ds, v, limit))}</p>',
        f'<div class="caveat" id="sure">{sure}</div>' if evidence or points else "",
        f"<p>{esc(W.existing_sentence(v, limit))} {esc(W.design_sentence(v, limit))}</p>",
        f"<p>{esc(W.regimes_sentence(v))} {esc(W.close_sentence(v))}</p>",
    )
    below = W.below_sentence(v, limit)
    page.add(
        f"<p>{esc(below)}</p>" if below else "",
        f'<p class="sure">{esc(W.sureness(ds, v, limit))}</p>',
        f"<p>{esc(_sampled(ds, case, limit_s))}</p>",
        f'<p class="sure">Owner\'s view: {esc(V.name_of(ds, case.scenario))}. {T.scenario_line(ds, case.scenario)} '
        f"{esc(W.first_token_sentence(ds))}</p>",
        "</section>",
    )
    first, *others = V.scenarios(ds)
    why = T.versus(ds, case, limit)
    note = "Cost of a token = cost of a chip-hour / (tokens a second of a chip x 3600 s)."
    page.add(f'{why}<p class="under">{note}</p>' if why else "")
    page.add(T.other_cases(ds, [first], "The other cases, same owner's view"))
    page.add(_fold("All cases with the other owners' views", T.other_cases(ds, others, "")) if others else "")


def _sampled(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """Probability of the headline's ranking, where samples were drawn."""
    from dse.report import uncertainty

    return uncertainty.chance_sentence(ds, case, limit_s) if uncertainty.known(ds, case) else ""


def _cost_figure(page: Page, y: str, scenario: str) -> str:
    values = T.scenario_line(page.ds, scenario)
    under = f"Owner's view {esc(V.name_of(page.ds, scenario))}" + (f" (90 % ranges in brackets): {values}" if values else ".")
    return figure(page, F.fronts(page.ds, y, scenario), D.front, "front", [y, V.SPEED], under)


def _tabs(page: Page, y: str, group: str) -> None:
    """Fronts of one metric, one tab for each owner's view."""
    names = V.scenarios(page.ds)
    if len(names) == 1:
        page.add(_cost_figure(page, y, names[0]))
        return
    rules = "".join(f"#{group}-{i}:checked ~ .tab-{i} {{ display: block; }}" for i in range(len(names)))
    page.add(f'<style>{rules}</style><div class="tabs">')
    for i, scenario in enumerate(names):
        page.add(
            f'<input type="radio" name="{group}" id="{group}-{i}"{" checked" if i == 0 else ""}>'
            f'<label for="{group}-{i}">{esc(V.name_of(page.ds, scenario))}</label>'
        )
    for i, scenario in enumerate(names):
        page.add(f'<div class="tab tab-{i}">', _cost_figure(page, y, scenario), "</div>")
    page.add("</div>")


def _fronts(page: Page) -> None:
    page.add('<h2 id="cost">1. What does a token cost, at which speed?</h2>')
    _tabs(page, V.COST, "owner")
    page.add('<h2 id="throughput">2. How much does one chip serve?</h2>')
    case, _ = V.headline(page.ds)
    page.add(
        figure(
            page,
            F.fronts(page.ds, V.THROUGHPUT, case.scenario),
            D.front,
            "front",
            [V.THROUGHPUT, V.SPEED],
            f"Layouts chosen for least cost, owner's view {esc(V.name_of(page.ds, case.scenario))}; a chip may serve more at higher cost.",
        )
    )


BAR_TITLES = {
    "time": "Where does the time go?",
    "dollar": "Where does the dollar go?",
    "die": "Where does the die go?",
    "chip_cost": "What does one chip cost to make?",
}


def _breakdowns(page: Page) -> None:
    page.add('<h2 id="breakdown">3. Where do time, money and silicon go?</h2>')
    for record in I.breakdowns(page.ds):
        parts = list(dict.fromkeys(c for _, bars in record.panels for b in bars for c, _ in b.shares))
        page.add(f"<h3>{BAR_TITLES[record.name]}</h3>", figure(page, record, D.bars, "bars", [record.quantity, *parts]))


def _bounds(page: Page) -> None:
    case, _ = V.headline(page.ds)
    every = [I.bound_strip(page.ds, c) for c in V.cases(page.ds, case.scenario)]
    page.add('<h2 id="bound">4. What limits?</h2>', T.strip(every[0]), f"<p>{esc(every[0].caption)}</p>")
    rows = [
        {"model": c.model, "workload": c.workload, **row}
        for c, s in zip(V.cases(page.ds, case.scenario), every, strict=True)
        for row in s.rows
    ]
    page.files["figures/bound.csv"] = csv_text(rows)
    others = "".join(T.strip(s) + f"<p>{esc(s.caption)}</p>" for s in every[1:])
    page.add(_fold("The other cases", others) if others else "", folds(page, "bound", ["bound", "time_s"], "bound", drawn=False))


def _designs(page: Page) -> None:
    case, _ = V.headline(page.ds)
    page.add('<h2 id="designs">5. The winning designs</h2>', T.winners(page.ds, case), T.variables(page.ds, case))
    others = "".join(T.winners(page.ds, c) + T.variables(page.ds, c) for c in V.cases(page.ds, case.scenario)[1:])
    page.add(
        _fold("The other cases", others) if others else "",
        '<p class="under">Every design on a front, with all values: <a href="designs.csv">designs.csv</a>.</p>',
    )


def _matters(page: Page) -> None:
    record = I.tornado(page.ds)
    if record:
        page.add('<h2 id="matters">6. What matters most?</h2>', figure(page, record, D.tornado, "elasticity", ["elasticity", V.COST]))


def _certificates(page: Page) -> None:
    rows = V.attr(page.ds, "certificates", [])
    if not rows:
        return
    columns = list(dict.fromkeys(k for r in rows for k in r))
    body = [[esc(W.number(r[c])) if isinstance(r.get(c), float) else esc(str(r.get(c, "–"))) for c in columns] for r in rows]
    page.add(
        "<h3>Certified bounds</h3><p>Inside the stated box no design of the family can cost less than the bound, in this model.</p>",
        T.table([T.term(c) for c in columns], body),
        worth.section(page.ds),
    )


def _sources(page: Page) -> None:
    ds = page.ds
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    ranking = V.winners(v, V.limit_index(v, limit_s))
    family = ranking[0][0] if ranking else None
    rows = V.attr(ds, "assumptions", [])
    effect = V.effects(ds, case, family) if family else {}
    moving = [r for r in rows if r["name"] in effect]
    rest = [r for r in rows if r["name"] not in effect]
    page.add(
        '<h2 id="assumptions">7. Assumptions</h2>',
        "<p>Values that are no datasheet facts. First those whose effect on the winner's cost is known, the strongest first; "
        "the change over the range is first order, one parameter at a time, layout held fixed.</p>"
        if rows
        else "<p>None recorded.</p>",
        T.assumptions(ds, moving, case, family) if moving else "",
        _fold(f"{len(rest)} further values", T.assumptions(ds, rest, case, family)) if rest else "",
        '<h2 id="sources">8. Sources</h2>',
        T.bibliography(ds),
    )


def _rerun(page: Page) -> None:
    ds = page.ds
    name = str(ds.attrs.get("study", "STUDY"))
    command = f"dse run {name} --seed {ds.attrs.get('seed', 0)}" + (f" --budget {ds.attrs['budget']}" if "budget" in ds.attrs else "")
    facts = [["Command", f"<code>{esc(command)}</code>"]]
    for key in (
        "study_sha256",
        "catalog_sha256",
        "git_commit",
        "created_utc",
        "wall_time_s",
        "counts",
        *sorted(str(k) for k in ds.attrs if "version" in str(k)),
        "platform",
    ):
        if ds.attrs.get(key) not in (None, ""):
            value = V.attr(ds, key, "")
            said = (
                ", ".join(f"{k} {W.number(x) if isinstance(x, int | float) else x}" for k, x in value.items())
                if isinstance(value, dict)
                else str(value)
            )
            facts.append([esc(key.replace("_", " ")), f"<code>{esc(said)}</code>"])
    cite = (
        f"dse: {ds.attrs.get('title', name)}. Study {str(ds.attrs.get('study_sha256', ''))[:12]}, "
        f"catalogue {str(ds.attrs.get('catalog_sha256', ''))[:12]}, "
        f"seed {ds.attrs.get('seed', 0)}, {str(ds.attrs.get('created_utc', ''))[:10]}."
    )
    page.add(
        '<h2 id="rerun">9. Run it again, cite it</h2>',
        T.table(["", ""], facts),
        f"<pre>{esc(cite)}</pre>",
        _fold("The study file", f"<pre>{esc(str(ds.attrs['study_toml']))}</pre>") if ds.attrs.get("study_toml") else "",
    )


NAVIGATION = (
    ("answer", "Answer"),
    ("cost", "Cost"),
    ("throughput", "Throughput"),
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
    text = first.section.sentence if first else W.winner_sentence(ds, v, V.limit_index(v, limit_s))
    found = {"answer": text, "analyses": {a.name: a.section.sentence for a in page.found}, "figures": page.said}
    return json.dumps(found, indent=1, ensure_ascii=False).replace(W.NARROW, " ") + "\n"


def _analysed(page: Page) -> None:
    """What `dse analyse` found. These sections live in modules of their own, which import this one."""
    from dse.report import breakeven, limits, redesign, regret, uncertainty

    for section in (limits.section, uncertainty.section, redesign.section, breakeven.section, regret.section):
        section(page)


SECTIONS = (_answer, _fronts, _breakdowns, _bounds, _designs, _certificates, _matters, _analysed, _analyses, _sources, _rerun)
LED = (
    _finding,
    _analyses,
    _fronts,
    _breakdowns,
    _bounds,
    _designs,
    _certificates,
    _matters,
    _analysed,
    _sources,
    _rerun,
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
    body = "\n".join(page.body)
    named = [(a.name, a.title) for a in page.found]
    order = [*NAVIGATION[:1], *named, *NAVIGATION[1:]] if first else [*NAVIGATION[:-3], *named, *NAVIGATION[-3:]]
    links = "".join(f'<a href="#{esc(key)}">{esc(label)}</a>' for key, label in order if f'id="{esc(key)}"' in body)
    title = esc(str(ds.attrs.get("title", "Design-space study")))
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    question = f'<p class="question">{esc(str(ds.attrs["question"]))}</p>' if ds.attrs.get("question") else ""
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>{css}</style></head>\n<body><h1>{title}</h1>\n{question}\n<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
    return text, page.files
