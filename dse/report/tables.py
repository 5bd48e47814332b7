"""Which tables does the page hold? HTML of the bound strip, winning designs, design variables, assumptions and sources.

Everything that comes from the Dataset is escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import info as I
from dse.report import view as V
from dse.report import words as W
from dse.report.draw import colour

esc = html.escape


def table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "", caption: str = "") -> str:
    """A table from cells that are HTML already; the first cell of a row is its head."""
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "\n".join(f'<tr><th scope="row">{r[0]}</th>' + "".join(f"<td>{c}</td>" for c in r[1:]) + "</tr>" for r in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="wide"><table class="{classes}">{title}<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def term(name: str) -> str:
    """A table head from the glossary, its definition as tooltip."""
    entry = glossary.find(name)
    return f'<abbr title="{esc(entry.definition)}">{esc(glossary.axis(name))}</abbr>' if entry else esc(glossary.axis(name))


def chip_of(family: str) -> str:
    """A coloured dot and the family's label."""
    style = glossary.load().families.get(family)
    hue = style.colour if style else "#777777"
    return f'<span class="family"><i style="background:{hue}"></i>{esc(glossary.label(family))}</span>'


def strip(record: I.StripInfo) -> str:
    """Heat strip: family by limit, colour and word of what limits; the cheapest family of a limit is framed."""
    head = [esc(glossary.label("family")), *(esc(W.quantity("tpot_limit", t)) for t in record.limits_s)]
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    rows = []
    for family, line in zip(record.families, record.bounds, strict=True):
        cells = []
        for bound, winner in zip(line, record.winner, strict=True):
            style = f' style="--hue:{colour(bound)}"' if bound else ""
            kind = ("bound" if bound else "none") + (" best" if winner == family and bound else "")
            cells.append(f'<td class="{kind}"{style}>{esc(glossary.part(bound)) if bound else "–"}</td>')
        rows.append(f'<tr><th scope="row">{chip_of(family)}</th>{"".join(cells)}</tr>')
    return f'<div class="wide"><table class="strip"><thead><tr>{top}</tr></thead>\n<tbody>' + "\n".join(rows) + "</tbody></table></div>"


WINNER_ROWS = (
    "chips",
    "batch",
    "format_weights",
    "format_kv",
    V.COST,
    "usd_per_million_token",
    V.SPEED,
    V.THROUGHPUT,
    "tpot_s",
    "ttft_s",
    "usd_per_chip_hour",
    "j_per_output_token",
    "facility_power_w",
    "mfu",
    "mbu",
    "mfu_prefill",
    "bound",
    "bound_prefill",
)


def _design_code(v: V.CaseView, design: int) -> str:
    full = str(v.ids[design])
    return f'<code title="{esc(full)}">{esc(full[:6] if v.status[design] == "hypothetical" else full)}</code>'


def _merged(v: V.CaseView, order: list[int]) -> list[list[int]]:
    """Limits in runs that the same design serves in the same way, so that each needs one column."""
    runs: list[list[int]] = []
    for t in order:
        design, cost = V.winners(v, t)[0][1:]
        if runs:
            last, paid = V.winners(v, runs[-1][0])[0][1:]
            if last == design and W.number(paid) == W.number(cost) and W.layout(v, design, t) == W.layout(v, design, runs[-1][0]):
                runs[-1].append(t)
                continue
        runs.append([t])
    return runs


def _ends(figures: list[str]) -> str:
    """One figure of a run of limits: itself where it is the same throughout, else its ends; a name that both share is said once."""
    first, last = figures[0], figures[-1]
    if len(set(figures)) == 1:
        return first
    one, other = first.rpartition(" "), last.rpartition(" ")
    return f"{first} … {other[2] if one[0] == other[0] else last}"


def winners(ds: xr.Dataset, case: V.Case) -> str:
    """The cheapest design at each limit of a case (one column for limits that it serves alike): layout, metrics, and the next family."""
    v = V.view(ds, case)
    order = [int(t) for t in np.argsort(-v.limits_s) if V.winners(v, int(t))]
    if not order:
        return f"<p>{esc(V.case_name(ds, case))}: nothing is feasible.</p>"
    runs = _merged(v, order)
    best = {run[0]: V.winners(v, run[0])[0][1] for run in runs}
    said = [
        W.shown("tpot_limit", v.limits_s[r[0]]) + (f" to {W.shown('tpot_limit', v.limits_s[r[-1]])}" if len(r) > 1 else "") for r in runs
    ]
    head = [term("tpot_limit"), *(esc(x) for x in said)]
    rows = [
        [term("family"), *(chip_of(V.winners(v, t)[0][0]) for t in best)],
        [term("design"), *(_design_code(v, d) for d in best.values())],
        ["Parallel layout", *(esc(W.degrees_text(v, d, t)) or "–" for t, d in best.items())],
    ]
    rows += [[term(name), *(esc(W.shown(name, V.cell(v, name, d, t))) for t, d in best.items())] for name in WINNER_ROWS if name in ds]
    following = [
        _ends([f"{glossary.label(r[1][0])} {W.number(r[1][2])}" if len(r := V.winners(v, t)) > 1 else "–" for t in run]) for run in runs
    ]
    rows.append(["Next family, its cost (USD/Mtoken)", *map(esc, following)])
    rows.append(["Cheapest existing chip, its cost (USD/Mtoken)", *(esc(_ends([_existing(v, t) for t in run])) for run in runs)])
    return table(head, rows, "winners", esc(f"The cheapest design at each promise: {V.case_name(ds, case)}"))


def _existing(v: V.CaseView, limit: int) -> str:
    """Name and cost of the cheapest chip that exists."""
    d = V.cheapest_existing(v, limit)
    return "–" if d is None else f"{W.short(str(v.chip[d]))} {W.number(float(v.grid(V.COST)[d, limit]))}"


VERSUS_ROWS = (
    V.COST,
    "usd_per_chip_hour",
    V.THROUGHPUT,
    V.SPEED,
    "j_per_output_token",
    "mfu",
    "mbu",
    "mfu_prefill",
    "unit_cost_usd_total",
    "tdp_w",
    "peak_fp8_flop_per_s",
    "memory_capacity_byte",
    "memory_bandwidth_byte_per_s",
    "sram_capacity_byte",
)


def versus(ds: xr.Dataset, case: V.Case, limit: int) -> str:
    """The winner beside the next family and the cheapest chip that exists, figure by figure; empty where it stands alone."""
    v = V.view(ds, case)
    ranking, existing = V.winners(v, limit), V.cheapest_existing(v, limit)
    designs = [r[1] for r in ranking[:2]] + ([existing] if existing is not None else [])
    gpu = [d for f, d, _ in ranking[2:] if f == "hbm_gpu"]
    designs = list(dict.fromkeys([*designs[:2], *gpu, *designs[2:]]))
    if len(designs) < 2:
        return ""
    measured = V.evidence(ds)
    basis = dict.fromkeys(measured.fitted, "fitted to measurements") | dict.fromkeys(measured.assumed, "assumed")
    rows = [["Family", *(chip_of(str(v.family[d])) for d in designs)]]
    if basis:
        rows.append(["Its engine constants are", *(esc(basis.get(str(v.family[d]), "–")) for d in designs)])
    rows.append(["Layout", *(esc(W.layout(v, d, limit)) for d in designs)])
    rows += [[term(n), *(esc(W.shown(n, V.cell(v, n, d, limit))) for d in designs)] for n in VERSUS_ROWS if n in ds]
    head = ["", *(esc(W.short(W.design_name(v, d))) for d in designs)]
    return table(head, rows, "winners", esc(f"Where the difference comes from: {V.case_name(ds, case)}"))


def other_cases(ds: xr.Dataset, scenarios: Sequence[str], caption: str) -> str:
    """One line for each case of some owners but the headline's: who wins at its limit, by how much, and who wins elsewhere."""
    first, limit_s = V.headline(ds)
    rows = []
    for scenario in scenarios:
        for case in V.cases(ds, scenario):
            if case == first:
                continue
            v = V.view(ds, case)
            limit = V.limit_index(v, limit_s)
            ranking, real = V.winners(v, limit), V.cheapest_existing(v, limit)
            who = [chip_of(ranking[0][0]), W.number(ranking[0][2])] if ranking else ["nothing feasible", "–"]
            following = f"{esc(glossary.label(ranking[1][0]))} {W.number(ranking[1][2])}" if len(ranking) > 1 else "–"
            chip = f"{esc(W.short(str(v.chip[real])))} {W.number(float(v.grid(V.COST)[real, limit]))}" if real is not None else "–"
            runs = ", ".join(f"{esc(glossary.label(r.family))} to {W.number(r.fast_token_per_s)}" for r in V.regimes(v)) or "–"
            rows.append([esc(V.case_name(ds, case)), esc(V.name_of(ds, scenario)), *who, following, chip, runs])
    if not rows:
        return ""
    unit = esc(glossary.unit(V.COST))
    head = [
        "Case",
        term("scenario"),
        f"Cheapest at {W.number(1 / limit_s)} token/s/user",
        unit,
        f"Next family, {unit}",
        f"Cheapest existing chip, {unit}",
        "Cheapest by promised speed, up to (token/s/user)",
    ]
    return table(head, rows, "cases", caption)


CHIP_ROWS = (
    "die_area_mm2",
    "tdp_w",
    "unit_cost_usd_total",
    "memory_capacity_byte",
    "memory_bandwidth_byte_per_s",
    "sram_capacity_byte",
    "weight_store_capacity_byte",
    "peak_fp8_flop_per_s",
    "peak_fp4_flop_per_s",
)


def _plain(name: str, value: Any) -> str:
    if isinstance(value, str | bytes | np.str_):
        return esc(str(value)) or "–"
    return W.shown(name, float(value)) if np.isfinite(value) else ""


def variables(ds: xr.Dataset, case: V.Case) -> str:
    """All design variables (and what follows from them) of every design that wins at some limit of a case; one column a design."""
    v = V.view(ds, case)
    designs = list(dict.fromkeys(V.winners(v, int(t))[0][1] for t in np.argsort(-v.limits_s) if V.winners(v, int(t))))
    if not designs:
        return ""
    head = ["", *(_design_code(v, d) for d in designs)]
    rows = [["Family", *(chip_of(str(v.family[d])) for d in designs)]]
    names = ["node", *V.decisions(ds), *(n for n in CHIP_ROWS if n in ds)]
    for name in dict.fromkeys(n for n in names if n in ds):
        values = [ds[name].values[d] for d in designs]
        shown = [_plain(name, x) for x in values]
        if name == "memory_bandwidth_byte_per_s" and "memory_capacity_byte" in ds:
            shown = ["" if ds["memory_capacity_byte"].values[d] == 0 else x for d, x in zip(designs, shown, strict=True)]
        if any(s not in ("", "–") for s in shown):
            stated = ds[name].attrs.get("units", "") if glossary.find(name) is None else ""
            rows.append([term(name) + (f" ({esc(stated)})" if stated not in ("", "1") else ""), *shown])
    return table(head, rows, "winners", esc(f"Design variables of the winners: {V.case_name(ds, case)}"))


def source_link(ds: xr.Dataset, key: str) -> str:
    """A source's key, linked to the bibliography where it is there."""
    return f'<a href="#ref-{esc(key)}">{esc(key)}</a>' if key in V.attr(ds, "bibliography", {}) else esc(key)


def assumptions(ds: xr.Dataset, rows: list[dict[str, Any]], case: V.Case, family: str | None) -> str:
    """Values with range, kind and source, and what their range does to the winner's cost."""
    effect = V.effects(ds, case, family) if family else {}
    head = ["Name", "Value", "Range (90 %)", "Winner's cost over the range", "Kind", "Source", "Note"]
    body = []
    for row in sorted(rows, key=lambda r: (-max(map(abs, effect.get(r["name"], (0.0,)))), r["name"])):
        change = " … ".join(W.percent(x, signed=True) for x in effect[row["name"]]) if row["name"] in effect else "–"
        body.append(
            [
                f"<code>{esc(row['name'])}</code>",
                esc(W.physical(row.get("value"), str(row.get("unit", "")))),
                esc(W.span(row)),
                change,
                esc(str(row.get("kind", ""))),
                source_link(ds, str(row.get("source", ""))),
                esc(str(row.get("note") or "")),
            ]
        )
    return table(head, body, "assumptions")


SCENARIO_VALUES = (
    "volume_wafer",
    "model_volume_wafer",
    "model_life_year",
    "life_year",
    "utilisation",
    "discount_per_year",
    "energy_usd_per_j",
    "cost_multiple",
    "vendor_multiple",
    "rents",
)


def scenario_line(ds: xr.Dataset, scenario: str) -> str:
    """The owner's values that decide most, with their ranges, in one line of text (escaped)."""
    found: dict[str, dict[str, Any]] = {}
    for row in V.attr(ds, "assumptions", []):
        owner, last = V.group_and_value(str(row["name"]))
        if last in SCENARIO_VALUES and owner == scenario:
            found[last] = row
    pieces = []
    for name in (n for n in SCENARIO_VALUES if n in found):
        row = found[name]
        span = f" [{W.span(row)}]" if row.get("low") is not None else ""
        counted = f" {glossary.unit(name)}" if row.get("unit") == "1" and glossary.unit(name) else ""
        pieces.append(f"{glossary.label(name)} {W.physical(row.get('value'), str(row.get('unit', '')))}{counted}{span}")
    return esc("; ".join(pieces) + ".") if pieces else ""


def bibliography(ds: xr.Dataset) -> str:
    """The sources that the values of this study come from."""
    items = []
    for key, row in sorted(V.attr(ds, "bibliography", {}).items()):
        url = str(row.get("url") or "")
        link = f' <a href="{esc(url)}">{esc(url)}</a>' if url.startswith(("http://", "https://")) else ""
        said = ". ".join(str(row[k]).strip(" .{}") for k in ("author", "title", "year") if row.get(k))
        items.append(f'<li id="ref-{esc(key)}"><b>{esc(key)}</b> {esc(said)}.{link}</li>')
    return '<ul class="sources">' + "\n".join(items) + "</ul>" if items else "<p>None recorded.</p>"
