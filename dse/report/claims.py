"""What does a study of claims say? One page: claim, our figure, ratio, verdict and reason, by document, and two figures."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import tables as T
from dse.report import words as W

esc = html.escape
HUES = {"holds": "#009E73", "holds within tolerance": "#0072B2", "depends": "#E69F00", "wrong": "#D55E00"}
DOCUMENTS = {
    "economies": "The essay on economies of scale",
    "compute-bound": "The note on compute-bound inference",
    "MLP": "The exercise on an A100",
    "discussion": "The discussion of the essay",
}
RELATIONS = {"equal": "", "at_least": "at least ", "at_most": "at most "}
HEAD = ["Claim", "Claimed", "Ours", "Calibrated", "Ratio", "Verdict", "Why"]
EXISTING = "existing"
DAY_S = 24.0 * 3600.0
FIELDS = "document system statement claim unit relation rounding tolerance ours calibrated ratio verdict why how".split()


def rows(ds: xr.Dataset) -> list[dict[str, Any]]:
    """The rows as plain records; figures that do not exist are None."""
    found = []
    for i, identity in enumerate(ds["row"].values):
        record = {name: ds[name].values[i] for name in FIELDS}
        plain = {k: (float(v) if np.isfinite(v) else None) if isinstance(v, (float, np.floating)) else str(v) for k, v in record.items()}
        found.append({"id": str(identity), **plain})
    return found


def counts(ds: xr.Dataset) -> dict[str, int]:
    """Rows of each verdict, best first."""
    said = [str(v) for v in ds["verdict"].values]
    return {name: said.count(name) for name in HUES}


def headline(ds: xr.Dataset) -> str:
    """How many claims hold, and the furthest off, as a sentence."""
    n, found = counts(ds), rows(ds)
    wrong = [r for r in found if r["verdict"] == "wrong" and r["ratio"]]
    first = (
        f"Of {len(found)} claims {n['holds']} hold, {n['holds within tolerance']} hold within their tolerance, {n['wrong']} are wrong "
        f"and {n['depends']} depend on what is meant."
    )
    if not wrong:
        return first
    far = sorted(wrong, key=lambda r: -abs(np.log(r["ratio"])))[:3]
    off = "; ".join(
        f"{r['id']} (ours {_with_unit(r['ours'], r)}, claimed {RELATIONS[r['relation']]}{_with_unit(r['claim'], r)})" for r in far
    )
    return f"{first} Furthest off: {off}."


def unit_of(row: dict[str, Any]) -> str:
    """The unit for people; nothing for pure numbers."""
    return "" if row["unit"] == "1" else str(row["unit"])


def _with_unit(value: float | None, row: dict[str, Any]) -> str:
    return f"{_figure(value)} {unit_of(row)}".strip()


def family_label(family: str) -> str:
    """Name of a family for people."""
    return "Chips on the market" if family == EXISTING else glossary.label(family)


def _table(ds: xr.Dataset, document: str) -> str:
    cases = json.loads(ds.attrs.get("cases", "{}"))
    body = []
    for r in rows(ds):
        if r["document"] != document:
            continue
        more = "".join(f"<li>{esc(k)}: {esc(_figure(float(v)))}</li>" for k, v in cases.get(r["id"], {}).items())
        fold = f"<details><summary>How</summary>{esc(r['how'])}" + (f"<ul>{more}</ul>" if more else "") + "</details>"
        verdict = f'<span class="verdict" style="--hue: {HUES[r["verdict"]]}">{esc(r["verdict"])}</span>'
        body.append(
            [
                f'<span id="{esc(r["id"])}">{esc(r["id"])}</span>',
                f'{esc(r["statement"])} <span class="under">({esc(r["system"])})</span>{fold}',
                f"{RELATIONS[r['relation']]}{esc(_with_unit(r['claim'], r))}",
                _figure(r["ours"]),
                _figure(r["calibrated"]) if r["calibrated"] is not None else "",
                _figure(r["ratio"]),
                verdict,
                esc(r["why"]),
            ]
        )
    return T.table(["", *HEAD], body, classes="claims") if body else ""


def _figure(value: float | None) -> str:
    return "none" if value is not None and np.isinf(value) else W.number(value)


# --- figures -------------------------------------------------------------------------------------------------------


def utilisation(ds: xr.Dataset) -> tuple[D.Canvas, str, str]:
    """Utilisation of the essay's system by batch, ideal and calibrated: drawing, caption, CSV."""
    canvas = D.Canvas("utilisation", 8.4, 4.0)
    axes = canvas.figure.subplots()
    load = ds["load"].values
    for name, hue, style in (("ideal", "#0072B2", "--"), ("calibrated", "#D55E00", "-")):
        share = ds["mfu"].sel(constants=name).values * 100
        axes.plot(load, share, color=hue, ls=style, lw=1.8)
        axes.annotate(name, (load[-1], share[-1]), xytext=(5, 0), textcoords="offset points", color=hue, va="center", fontweight="bold")
        for x, y in zip(load, share, strict=True):
            axes.plot([x], [y], marker="o", ms=3.5, color=hue, gid=canvas.tip(f"{name}: batch {x:g}, {y:.3g} %"))
    said = {"util-0.2pct": 1.0, "util-20pct": 100.0}
    for identity, batch in said.items():
        claim = float(ds["claim"].sel(row=identity)) * 100
        axes.plot([batch], [claim], marker="*", ms=12, mfc=D.PAPER, mec=D.INK, ls="", zorder=5, gid=canvas.tip(f"claimed: {claim:g} %"))
        where: Any = {"xytext": (-9, 4), "ha": "right"} if batch > 1 else {"xytext": (10, -24)}  # clear of both lines
        axes.annotate(f"claimed {claim:g} %", (batch, claim), textcoords="offset points", color=D.INK, fontsize=8, **where)
    axes.set(xscale="log", yscale="log", xlim=(0.8, load[-1] * 2.4))
    axes.set(xlabel="requests at the same time", ylabel="arithmetic in use, % of the peak")
    D._log_axis(axes.xaxis, 1, 1e4)
    D._log_axis(axes.yaxis, 1e-2, 1e2)
    axes.grid(True)
    ideal, real = (ds["mfu"].sel(constants=c).values for c in ("ideal", "calibrated"))
    at = int(np.argmin(np.abs(load - 128)))
    caption = (
        f"Utilisation of 20 chips that serve the essay's 1.6e12-parameter model: {W.number(ideal[0] * 100)} % alone, "
        f"{W.number(ideal[at] * 100)} % at {load[at]:g} requests if only weights cost time, {W.number(real[at] * 100)} % with "
        "everything that the fitted "
        f"constants charge. Stars: the essay."
    )
    text = "batch,ideal,calibrated\n" + "".join(f"{x:g},{a:.6g},{b:.6g}\n" for x, a, b in zip(load, ideal, real, strict=True))
    return canvas, caption, text


def centralisation(ds: xr.Dataset) -> tuple[D.Canvas, str, str]:
    """Cost of a token for one user against the best batch, by family, no latency limit: drawing, caption, CSV."""
    cost = ds["cost"].isel(limit=0)
    alone = {str(f): float(cost.sel(family=f).isel(batch=0)) for f in ds["family"].values}
    best = {str(f): float(cost.sel(family=f).min()) for f in ds["family"].values}
    order = sorted((f for f in alone if np.isfinite(alone[f]) and np.isfinite(best[f])), key=lambda f: alone[f] / best[f])
    canvas = D.Canvas("centralisation", 8.4, 0.9 + 0.42 * len(order))
    axes = canvas.figure.subplots()
    for i, f in enumerate(order):
        style = glossary.load().families.get(f)
        hue = style.colour if style else D.SOFT
        axes.plot([best[f], alone[f]], [i, i], color=hue, lw=2.2, alpha=0.6)
        factor = f"{W.number(alone[f] / best[f])} ×"
        tip = canvas.tip(f"{family_label(f)}: {W.number(best[f])} at the best batch, {W.number(alone[f])} alone, {factor}")
        axes.plot([best[f]], [i], marker="o", ms=7, color=hue, ls="", gid=tip)
        axes.plot([alone[f]], [i], marker="o", ms=7, mfc=D.PAPER, mec=hue, mew=1.6, ls="")
        middle = (float(np.sqrt(alone[f] * best[f])), i)
        axes.annotate(factor, middle, xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(order)), [family_label(f) for f in order])
    axes.set(xscale="log", xlabel="USD per million output tokens; full: best batch, hollow: one user alone", ylim=(-0.6, len(order) - 0.2))
    D._log_axis(axes.xaxis, min(best[f] for f in order), max(alone[f] for f in order))
    axes.grid(True, axis="x")
    low, high = order[0], order[-1]
    caption = (
        f"How many times more a user pays who has an instance alone, on each family's best designs without a limit on speed: from "
        f"{W.number(alone[low] / best[low])} ({family_label(low)}) to {W.number(alone[high] / best[high])} ({family_label(high)}); "
        f"the essay says about {W.number(float(ds['claim'].sel(row='thousandfold')))}. Designs were searched for the best batch, so "
        "the hollow "
        f"marks are upper bounds; families other than GPUs stand on assumed constants."
    )
    lines = [f"{f},{alone[f]:.6g},{best[f]:.6g},{alone[f] / best[f]:.6g}" for f in order]
    return canvas, caption, "\n".join(["family,usd_per_million_alone,usd_per_million_best,ratio", *lines, ""])


def demand(ds: xr.Dataset) -> tuple[D.Canvas, str, str]:
    """Cost of a token by the requests that an instance has at the same time, by family, no latency limit: drawing, caption, CSV."""
    canvas = D.Canvas("demand", 8.4, 4.2)
    axes = canvas.figure.subplots()
    batch = ds["batch"].values
    curves = {str(f): np.minimum.accumulate(ds["cost"].isel(limit=0).sel(family=f).values) for f in ds["family"].values}
    curves = {f: c for f, c in curves.items() if np.isfinite(c).any()}
    for f, curve in curves.items():
        style = glossary.load().families.get(f)
        hue = style.colour if style else D.SOFT
        axes.plot(batch, curve, color=hue, lw=1.8, label=family_label(f))
        for x, y in zip(batch, curve, strict=True):
            axes.plot(
                [x], [y], marker="o", ms=3.5, color=hue, gid=canvas.tip(f"{family_label(f)}: {x:g} requests, {W.number(y)} USD/Mtoken")
            )
    finite = np.concatenate([c[np.isfinite(c)] for c in curves.values()])
    axes.set(xscale="log", yscale="log", xlabel="requests at the same time", ylabel="USD per million output tokens")
    D._log_axis(axes.xaxis, 1, 1e4)
    D._log_axis(axes.yaxis, finite.min(), finite.max())
    axes.grid(True)
    canvas.figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    needed = {f: float(ds["requests"].sel(family=f)) for f in curves}
    few, many = min(needed, key=needed.__getitem__), max(needed, key=needed.__getitem__)
    users = DAY_S / float(ds.attrs.get("use_s_per_day") or DAY_S)
    caption = (
        f"What demand buys: at twice its least cost of a token a family needs between {W.number(needed[few])} requests at the same time "
        f"({family_label(few)}) and {W.number(needed[many])} ({family_label(many)}); with the essay's ten minutes a day these are "
        f"{W.number(needed[few] * users)} and {W.number(needed[many] * users)} users of one instance, at the mean load of a day."
    )
    lines = [",".join([f"{x:g}", *(f"{c[i]:.6g}" for c in curves.values())]) for i, x in enumerate(batch)]
    return canvas, caption, "\n".join([",".join(["requests", *curves]), *lines, ""])


# --- the page ------------------------------------------------------------------------------------------------------

RULE = (
    "A verdict is computed: the ratio of our figure to the claim must stay within the rounding of the printed figure (holds) or the "
    "tolerance "
    "that its row states (holds within tolerance), else it is wrong; where figures under other premises named in the row come out "
    "differently, "
    "it depends. Plain arithmetic is done with ideal constants, with the calibrated figure beside it."
)
STYLE = """
.verdict { display: inline-block; padding: 0 .45em; border-radius: .3em; background: color-mix(in srgb, var(--hue) 28%, var(--paper)); }
table.claims { width: 100%; } table.claims details { border: 0; } table.claims tbody th { white-space: normal; width: 6.5rem; }
table.claims td:nth-child(2) { width: 17rem; } table.claims td:nth-child(3) { width: 7rem; } table.claims td:nth-child(4),
table.claims td:nth-child(5), table.claims td:nth-child(6) { width: 4.6rem; } table.claims td:nth-child(7) { width: 6.4rem; }
table.claims .under { font-size: inherit; }
"""


FACTS = "designs_from study_sha256 catalog_sha256 git_commit created_utc wall_time_s dse_version jax_version platform".split()


def _facts(ds: xr.Dataset) -> str:
    said = [["Command", f"<code>dse run {esc(str(ds.attrs.get('study', 'seed_claims')))}</code>"]]
    for key in FACTS:
        if ds.attrs.get(key) not in (None, ""):
            said.append([key.replace("_", " "), f"<code>{esc(str(ds.attrs[key]))}</code>"])
    return T.table(["", ""], said)


def build(ds: xr.Dataset) -> tuple[str, dict[str, str | bytes]]:
    """The page and the files beside it (relative path -> content): a pure function of the Dataset."""
    files: dict[str, str | bytes] = {}
    drawn = []
    with mpl.rc_context(D.STYLE):
        for canvas, caption, text in (utilisation(ds), centralisation(ds), demand(ds)):
            drawing = D.svg(canvas)
            files |= {f"figures/{canvas.name}.svg": D.file_svg(drawing), f"figures/{canvas.name}.csv": text}
            link = f'<p class="under">Data: <a href="figures/{canvas.name}.csv">{canvas.name}.csv</a></p>'
            drawn.append(f"<figure>{D.inline(drawing, caption)}<figcaption>{esc(caption)}</figcaption>{link}</figure>")
            if canvas.name == "centralisation":
                files["figures/headline.png"] = D.png(canvas)
    title = esc(str(ds.attrs.get("title", "Claims")))
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8") + STYLE
    documents = dict.fromkeys(str(d) for d in ds["document"].values)
    sections = [f'<h2 id="{esc(d)}">{esc(DOCUMENTS.get(d, d))}</h2>{_table(ds, d)}' for d in documents]
    links = "".join(f'<a href="#{esc(d)}">{esc(DOCUMENTS.get(d, d))}</a>' for d in documents)
    body = "\n".join(
        [
            f'<section class="answer"><p class="first">{esc(headline(ds))}</p><p class="sure">{esc(RULE)}</p>'
            f'<p class="sure">Designs of the chip families come from {esc(str(ds.attrs.get("designs_from", "a search")))}.</p></section>',
            *sections,
            f'<h2 id="figures">Figures</h2>{"".join(drawn)}',
            f'<h2 id="sources">Sources</h2>{T.bibliography(ds)}<h2 id="rerun">Run it again</h2>{_facts(ds)}',
            '<p class="under">All rows: <a href="claims.csv">claims.csv</a>.</p>',
        ]
    )
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>{css}</style></head>\n<body><h1>{title}</h1>\n"
        f'<p class="question">{esc(str(ds.attrs.get("question", "")))}</p>\n'
        f'<nav>{links}<a href="#figures">Figures</a><a href="#sources">Sources</a></nav>\n'
        f"{body}\n</body></html>\n"
    )
    return text, files


def diff(a: xr.Dataset, b: xr.Dataset) -> str:
    """Rows whose verdict or figure differs, one line each."""
    first, second = ({r["id"]: r for r in rows(ds)} for ds in (a, b))
    lines = []
    for identity in dict.fromkeys([*first, *second]):
        x, y = first.get(identity), second.get(identity)
        if x is None or y is None:
            lines.append(f"{identity}: only in {'the second' if x is None else 'the first'}")
        elif x["verdict"] != y["verdict"] or _figure(x["ours"]) != _figure(y["ours"]):
            lines.append(f"{identity}: {_figure(x['ours'])} ({x['verdict']}) -> {_figure(y['ours'])} ({y['verdict']})")
    return "\n".join(lines)


def summary(ds: xr.Dataset) -> str:
    """The rows for a terminal: one line each, and the sentence."""
    lines = [
        f"{r['id']:<17} {r['verdict']:<23} ours {_figure(r['ours']):>9} claimed {W.number(r['claim']):>9} {unit_of(r)}" for r in rows(ds)
    ]
    return "\n".join([headline(ds), "", *lines]).replace(W.NARROW, " ")
