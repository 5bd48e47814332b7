"""What does every report say? Its sections: the answer, costs and speeds, where time and money go, designs, assumptions, sources."""

from __future__ import annotations

import html

import xarray as xr

from dse.report import draw as D
from dse.report import fronts as F
from dse.report import info as I
from dse.report import page as P
from dse.report import proved, regret, sure, uncertainty, worth
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W
from dse.report.answers import lead

esc = html.escape


def finding(page: P.Page) -> None:
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


def analyses(page: P.Page) -> None:
    """Every analysis of the study: its finding, figures and tables."""
    for a in page.found:
        page.add(f'<h2 id="{esc(a.name)}">{esc(a.title)}</h2>', f"<p>{esc(a.section.sentence)}</p>")
        for d in a.section.drawn:
            page.add(P.figure(page, d, lambda drawn: drawn.canvas, a.section.method, list(d.names)))
        page.add(*a.section.blocks)


SIMULATED = (
    "Times are those of a simulator, {}; the model proposed the layouts that it was asked for, and gives money, power and shares of time."
)


def answer(page: P.Page) -> None:
    """The winner first, then what it rests on, the chips that exist, and the other regimes."""
    ds = page.ds
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    limit = V.limit_index(v, limit_s)
    mixed = regret.mix_sentence(ds)
    evidence, survival = W.evidence_sentence(ds, v, limit), W.survival(ds, v, limit)
    points = "".join(f"<li>{esc(x)}</li>" for x in survival)
    caution = f"<p>{esc(evidence)}</p>" + (f"<ul>{points}</ul>" if points else "")
    page.add(
        '<section class="answer" id="answer">',
        f'<p class="first">{esc(mixed or W.winner_sentence(ds, v, limit))}</p>',
        f"<p>{esc(W.winner_sentence(ds, v, limit))}</p>" if mixed else "",
        f'<div class="caveat" id="sure">{caution}</div>' if evidence or points else "",
        f"<p>{esc(W.existing_sentence(v, limit))} {esc(W.design_sentence(v, limit))}</p>",
        f"<p>{esc(W.regimes_sentence(v))} {esc(W.close_sentence(v))}</p>",
    )
    below = W.below_sentence(v, limit)
    page.add(
        f"<p>{esc(below)}</p>" if below else "",
        f'<p class="sure">{esc(W.sureness(ds, v, limit))}</p>',
        f"<p>{esc(sampled(ds, case, limit_s))}</p>",
        f"<p>{esc(near)}</p>" if (near := proved.of(ds)) else "",
        f'<p class="sure">{esc(SIMULATED.format(by))}</p>' if (by := ds.attrs.get("simulator")) else "",
        f'<p class="sure">Owner\'s view: {esc(V.name_of(ds, case.scenario))}. {T.scenario_line(ds, case.scenario)} '
        f"{esc(W.first_token_sentence(ds))}</p>",
        "</section>",
    )
    first, *others = V.scenarios(ds)
    why = T.versus(ds, case, limit)
    note = "Cost of a token = cost of a chip-hour / (tokens a second of a chip x 3600 s)."
    page.add(f'{why}<p class="under">{note}</p>' if why else "")
    page.add(T.other_cases(ds, [first], "The other cases, same owner's view"))
    page.add(P.fold("All cases with the other owners' views", T.other_cases(ds, others, "")) if others else "")


def sampled(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """Probability of the headline's ranking, where samples were drawn."""
    if not uncertainty.known(ds, case):
        return ""
    said = (
        uncertainty.chance_sentence(ds, case, limit_s),
        sure.stated_winners(ds, case),
        uncertainty.cost_sentence(ds, case, limit_s),
        sure.optimism(ds),
    )
    return " ".join(x for x in said if x)


def cost_figure(page: P.Page, y: str, scenario: str) -> str:
    """Fronts of one metric for one owner, with the owner's values under it."""
    values = T.scenario_line(page.ds, scenario)
    under = f"Owner's view {esc(V.name_of(page.ds, scenario))}" + (f" (90 % ranges in brackets): {values}" if values else ".")
    return P.figure(page, F.fronts(page.ds, y, scenario), D.front, "front", [y, V.SPEED], under)


def tabs(page: P.Page, y: str, group: str) -> None:
    """Fronts of one metric, one tab for each owner's view."""
    names = V.scenarios(page.ds)
    if len(names) == 1:
        page.add(cost_figure(page, y, names[0]))
        return
    rules = "".join(f"#{group}-{i}:checked ~ .tab-{i} {{ display: block; }}" for i in range(len(names)))
    page.add(f'<style>{rules}</style><div class="tabs">')
    for i, scenario in enumerate(names):
        page.add(
            f'<input type="radio" name="{group}" id="{group}-{i}"{" checked" if i == 0 else ""}>'
            f'<label for="{group}-{i}">{esc(V.name_of(page.ds, scenario))}</label>'
        )
    for i, scenario in enumerate(names):
        page.add(f'<div class="tab tab-{i}">', cost_figure(page, y, scenario), "</div>")
    page.add("</div>")


def fronts(page: P.Page) -> None:
    """Cost and throughput over speed."""
    page.add('<h2 id="cost">1. What does a token cost, at which speed?</h2>')
    tabs(page, V.COST, "owner")
    page.add('<h2 id="throughput">2. How much does one chip serve?</h2>')
    case, _ = V.headline(page.ds)
    page.add(
        P.figure(
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


def breakdowns(page: P.Page) -> None:
    """Time, money, die and chip in parts."""
    page.add('<h2 id="breakdown">3. Where do time, money and silicon go?</h2>')
    for record in I.breakdowns(page.ds):
        parts = list(dict.fromkeys(c for _, bars in record.panels for b in bars for c, _ in b.shares))
        page.add(f"<h3>{BAR_TITLES[record.name]}</h3>", P.figure(page, record, D.bars, "bars", [record.quantity, *parts]))


def bounds(page: P.Page) -> None:
    """The largest part of a step, case by case."""
    case, _ = V.headline(page.ds)
    every = [I.bound_strip(page.ds, c) for c in V.cases(page.ds, case.scenario)]
    page.add('<h2 id="bound">4. What limits?</h2>', T.strip(every[0]), f"<p>{esc(every[0].caption)}</p>")
    rows = [
        {"model": c.model, "workload": c.workload, **row}
        for c, s in zip(V.cases(page.ds, case.scenario), every, strict=True)
        for row in s.rows
    ]
    page.files["figures/bound.csv"] = P.csv_text(rows)
    others = "".join(T.strip(s) + f"<p>{esc(s.caption)}</p>" for s in every[1:])
    page.add(P.fold("The other cases", others) if others else "", P.folds(page, "bound", ["bound", "time_s"], "bound", drawn=False))


def designs(page: P.Page) -> None:
    """Design variables of the winners."""
    case, _ = V.headline(page.ds)
    page.add('<h2 id="designs">5. The winning designs</h2>', T.winners(page.ds, case), T.variables(page.ds, case))
    others = "".join(T.winners(page.ds, c) + T.variables(page.ds, c) for c in V.cases(page.ds, case.scenario)[1:])
    page.add(
        P.fold("The other cases", others) if others else "",
        '<p class="under">Every design on a front, with all values: <a href="designs.csv">designs.csv</a>.</p>',
    )


def matters(page: P.Page) -> None:
    """Elasticities of the winner's cost."""
    record = I.tornado(page.ds)
    if record:
        page.add('<h2 id="matters">6. What matters most?</h2>', P.figure(page, record, D.tornado, "elasticity", ["elasticity", V.COST]))


def certificates(page: P.Page) -> None:
    """Bounds that `dse certify` issued, and what limits are worth there."""
    page.add(proved.section(page.ds), worth.section(page.ds))


def sources(page: P.Page) -> None:
    """Assumptions with their effect, and the bibliography."""
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
        P.fold(f"{len(rest)} further values", T.assumptions(ds, rest, case, family)) if rest else "",
        '<h2 id="sources">8. Sources</h2>',
        T.bibliography(ds),
    )


def rerun(page: P.Page) -> None:
    """The command, hashes and versions, and how to cite."""
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
        "cpu_time_s",
        "first_look_s",
        "counts",
        "simulator",
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
        P.fold("The study file", f"<pre>{esc(str(ds.attrs['study_toml']))}</pre>") if ds.attrs.get("study_toml") else "",
    )
