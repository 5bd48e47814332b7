"""The validation as one page: figures, tables and lists from outcomes, self-contained, the same bytes for the same outcomes."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dse.validate import figures as F
from dse.validate import summary as S
from dse.validate.table import ANY, Outcome

CSS = Path(__file__).resolve().parent.parent / "report" / "page.css"
OWN_CSS = """
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .4rem 1rem; }
.grid svg { width: 100%; height: auto; font: 9px "DejaVu Sans", Verdana, sans-serif; fill: currentColor; }
.grid .t { font-weight: 700; font-size: 10.5px; } .grid .c { text-anchor: middle; } .grid .r { text-anchor: end; }
.grid .g { stroke: var(--grid); stroke-width: .5; fill: none; } .grid .d { stroke: var(--soft); stroke-width: .8; fill: none; }
.grid .p { fill: none; stroke-width: 2.2; stroke-linecap: round; opacity: .75; }
.legend .family { margin-right: 1rem; } td.n { text-align: right; white-space: nowrap; }
"""
MOST_POINTS = 1500  # of a figure: more are thinned evenly
UNITS = {"us": "µs", "ms": "ms", "tok/s/chip": "token/s", "tok/s": "token/s"}
AXES = {
    "m": "rows M", "batch": "sequences", "seq_q": "prompt [token]", "tokens": "tokens", "msg_bytes": "message [byte]",
    "tokens_per_rank": "tokens of a rank", "batch_or_concurrency": "concurrency", "isl": "prompt [token]",
}  # fmt: skip
SYSTEM_AXES = (("n_chips", "chips"), ("batch_or_concurrency", "concurrency"), ("isl", "prompt [token]"), ("osl", "output [token]"))
CONTEXT = (("attention_decode", "context_len", "context [token]"), ("mla_decode_absorbed", "context_len", "context [token]"))


def esc(text: Any) -> str:
    """Text for the page."""
    return html.escape(str(text))


def percent(x: float | None) -> str:
    """A share as a percentage.

    >>> percent(0.0567), percent(0.234), percent(None)
    ('5.7 %', '23 %', '–')
    """
    if x is None or math.isnan(x):
        return "–"
    return f"{100 * x:.1f} %" if abs(x) < 0.0995 else f"{100 * x:.0f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table; cells are HTML. Cells after the first that begin with a digit, a sign or a dash stand right."""

    def cell(text: str, first: bool) -> str:
        number = not first and (text[:1].isdigit() or text[:1] in "-–+")
        return f'<td class="n">{text}</td>' if number else f"<td>{text}</td>"

    body = "".join("<tr>" + "".join(cell(c, i == 0) for i, c in enumerate(r)) + "</tr>" for r in rows)
    titles = "".join(f"<th>{esc(h)}</th>" for h in head)
    name = f"<caption>{esc(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{name}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def fold(title: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{esc(title)}</summary>{content}</details>"


def _met(value: float | None, asked: float | None) -> str:
    if asked is None:
        return "–"
    return percent(asked) + (" ✓" if value is not None and value <= asked + 0.0005 else "")


# --- sections ----------------------------------------------------------------------------------------------------------------


def summary_table(done: Sequence[Outcome], fits: Mapping[str, Any]) -> str:
    """Errors by kind beside what was asked, with the number of constants and of rows."""
    counts, cross = fits.get("constants", {}), fits.get("left_out", {})
    rows = []
    for r in S.reached(done):
        out = cross.get(r["kind"], {})
        rows.append(
            [
                esc(r["kind"]), str(r["n"]), str(r["groups"]), str(counts.get(r["kind"], "–")), percent(r["median"]),
                _met(r["median"], r["asked_median"]), percent(r["p90"]), _met(r["p90"], r["asked_p90"]), percent(r["bias"]),
                percent(r["with_excluded"]), percent(out.get("shape")), percent(out.get("same", out.get("chip"))),
                percent(out.get("other")), percent(out.get("model")),
            ]
        )  # fmt: skip
    head = ("kind", "rows", "groups", "constants", "median", "asked", "90th percentile", "asked", "bias", "median with excluded rows",
            "shapes left out", "chip left out", "generation left out", "model left out")  # fmt: skip
    return table(head, rows)


def _colours(done: Sequence[Outcome]) -> dict[str, str]:
    chips = sorted({o.chip for o in done if o.compared})
    return {chip: F.COLOURS[i % len(F.COLOURS)] for i, chip in enumerate(chips)}


def _thin(rows: Sequence[Outcome]) -> list[Outcome]:
    step = max(1, math.ceil(len(rows) / MOST_POINTS))
    return list(rows[::step])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None


def _series(points: Sequence[tuple[Outcome, tuple[float, float]]], colours: Mapping[str, str]) -> list[F.Series]:
    by: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for o, point in points:
        by[o.chip].append(point)
    return [F.Series(chip, colours[chip], tuple(each)) for chip, each in sorted(by.items())]


def against_figures(done: Sequence[Outcome], colours: Mapping[str, str]) -> str:
    """Predicted against measured, a drawing for each kind."""
    drawn = []
    for kind in S.KINDS:
        rows = [o for o in S.members(kind, done) if not o.excluded_by and o.predicted]
        unit = max({o.unit for o in rows}, key=lambda u: sum(o.unit == u for o in rows), default="")
        same = _thin([o for o in rows if o.unit == unit])
        if same:
            points = [(o, (float(o.measured or 0.0), float(o.predicted or 0.0))) for o in same]
            drawn.append(F.against(kind.name, UNITS.get(unit, unit), _series(points, colours)))
    return f'<div class="grid">{"".join(drawn)}</div>'


def _residual(title: str, column: str, name: str, rows: Sequence[Outcome], colours: Mapping[str, str]) -> str:
    points = []
    for o in _thin(rows):
        size = _number(o.row.get(column, ""))
        if size is not None:
            points.append((o, (size, o.error)))
    return F.residuals(title, name, _series(points, colours)) if points else ""


def residual_figures(done: Sequence[Outcome], colours: Mapping[str, str]) -> str:
    """Errors against size, batch, degree, context and format, operators first."""
    kept = [o for o in done if o.compared and not o.excluded_by]
    drawn = []
    for kind in S.KINDS:
        rows = [o for o in S.members(kind, done) if not o.excluded_by]
        if kind.axis and kind.by_group:
            drawn.append(_residual(kind.name, kind.axis, AXES[kind.axis], rows, colours))
    for op, column, name in CONTEXT:
        drawn.append(_residual(op.replace("_", " "), column, name, [o for o in kept if o.op == op], colours))
    for title, place in (("TPOT, aggregated", 10), ("TTFT, aggregated", 11)):
        rows = [o for o in S.members(S.KINDS[place], done) if not o.excluded_by]
        drawn += [_residual(title, column, name, rows, colours) for column, name in SYSTEM_AXES]
    return f'<div class="grid">{"".join(drawn)}</div>'


def order_table(done: Sequence[Outcome]) -> str:
    """Kendall tau of layouts, loads and chips."""
    rows = []
    for r in S.order(done):
        met = " ✓" if r["tau"] >= r["asked"] - 0.0005 else ""
        rows.append([esc(r["order"]), f"{r['n']} {r['of']}", "–" if math.isnan(r["tau"]) else f"{r['tau']:.3f}", f"{r['asked']:.2f}{met}"])
    return table(("order of", "over", "Kendall tau", "asked"), rows)


def noise_table(done: Sequence[Outcome]) -> str:
    """What lies in the measurements."""
    rows = [[esc(r["what"]), str(r["n"]), percent(r["median"]), percent(r["p90"])] for r in S.not_the_models(done)]
    return table(("what", "rows", "median", "90th percentile"), rows)


def _short(x: float | None) -> str:
    return "–" if x is None else f"{x:.4g}"


def worst_table(done: Sequence[Outcome]) -> str:
    """The runs and shapes that are furthest off."""
    rows = []
    for o in S.worst(done):
        shape = [f"{k} {o.row[k]}" for k in ("m", "n", "k", "batch", "context_len", "seq_q", "tokens", "n_chips", "tp", "ep", "isl", "osl")
                 if o.row.get(k)]  # fmt: skip
        load = o.row.get("batch_or_concurrency", "")
        where = ", ".join(
            [*shape, *([f"load {load}"] if load else []), *([o.row["software"].split(" (")[0]] if o.row.get("software") else [])]
        )
        name = f"{o.op} {o.model}".strip()
        rows.append([esc(o.id), esc(o.chip), esc(name), esc(o.format), esc(where), _short(o.measured), _short(o.predicted), esc(o.unit)])
    return table(("row", "chip", "what", "format", "how", "measured", "predicted", "unit"), rows)


def groups_table(answer: Mapping[str, Any]) -> str:
    """Every operator or metric on every chip."""
    rows = []
    for g in answer["groups"]:
        if g["op"] != ANY and g["chip"] != ANY and g["model"] == ANY and g["format"] == ANY and g["n"]:
            tau = "–" if g["kendall_tau"] is None else f"{g['kendall_tau']:.2f}"
            figures = [percent(g[k]) for k in ("median_abs_error", "p90_abs_error", "bias")]
            extra = percent(g["with_excluded"]["median_abs_error"]) if g["with_excluded"] else "–"
            rows.append([esc(g["op"]), esc(g["chip"]), str(g["n"]), *figures, tau, extra, str(g["n_flagged"])])
    head = ("operator or metric", "chip", "rows", "median", "90th percentile", "bias", "tau", "median with excluded rows", "flagged")
    return table(head, rows)


def special_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Special chips: measured or claimed, predicted, ideal, and a verdict in words."""
    head = ("chip", "model", "metric", "kind", "published", "predicted", "slow layers", "fast layers", "ideal", "verdict")
    cells = []
    for r in rows:
        numbers = ["–" if r[k] is None else _short(r[k]) for k in ("measured", "predicted", "slow", "fast", "ideal")]
        cells.append([esc(r["chip"]), esc(r["model"]), esc(r["metric"]), esc(r["kind"]), *numbers, esc(r["verdict"])])
    return table(head, cells)


def _pair(each: Mapping[str, float], name: str) -> str:
    """Median and 90th percentile of errors with something left out."""
    return f"{percent(each[name])} / {percent(each[f'{name}_p90'])}" if name in each else "–"


def _cross_operators(fits: Mapping[str, Any]) -> list[str]:
    """Operators with shapes, chips and generations left out, and how many constants a chip has."""
    cells = [
        [esc(k), *(_pair(v, name) for name in ("shape", "same", "other"))] for k, v in fits.get("left_out", {}).items() if "shape_p90" in v
    ]
    if not cells:
        return []
    head = ("operator", "shapes left out", "chip left out, its generation known", "generation left out")
    counts = [[esc(chip), str(n["own"]), str(n["shared"])] for chip, n in sorted(fits.get("constants_by_chip", {}).items())]
    return [
        "<h3>Operators: what a fit has not seen</h3><p>Median / 90th percentile, mean over fits and chips. A chip left out takes the mean "
        "constants of the other chips of its generation; with its whole generation left out, those of the other generations.</p>",
        table(head, cells),
        "<h3>Free constants of each chip</h3><p>Over all operators, formats and implementations that it was measured with: fitted to its "
        "rows alone, and shared with the chips of its group.</p>",
        table(("chip", "own", "shared"), counts),
    ]


def _cross(fits: Mapping[str, Any]) -> str:
    """Errors on what a fit has not seen, where they were computed."""
    parts = _cross_operators(fits)
    few = fits.get("rows_of_a_new_chip")
    if few:
        series = [F.Series(k, F.COLOURS[i], tuple((float(n), 100 * v) for n, v in each)) for i, (k, each) in enumerate(few.items())]
        drawing = F.lines("a new chip: error against its measured rows", "rows of that chip in the fit", "median error [%]", series)
        rows = [[esc(k), *(f"{percent(v)}" for _, v in each)] for k, each in few.items()]
        counts = [str(n) for n, _ in next(iter(few.values()))]
        parts += [
            "<h3>A chip with few measured rows</h3><p>Each chip in turn is new: the constants are those of its generation, "
            "and so many rows of each of its formats and implementations are fitted on top; the error is that of its other rows.</p>",
            table(("operator", *(f"{n} rows" for n in counts)), rows),
            f'<div class="grid">{drawing}</div>' + F.legend([(s.name, s.colour) for s in series]),
        ]
    system = fits.get("system")
    if system:
        left = ("fit", "chip", "model", "engine")
        rows = [
            [esc(s["what"]), str(s["n"]), str(s["constants"]), *(f"{percent(s[k][0])} / {percent(s[k][1])}" for k in left)] for s in system
        ]
        parts += [
            "<h3>Serving runs: what a fit has not seen</h3><p>Median / 90th percentile, the constants of engines and chips fitted "
            "without the runs of one chip, model or engine. Operator constants stay those of the chip.</p>",
            table(("latency", "rows", "constants", "in fit", "chip left out", "model left out", "engine left out"), rows),
        ]
    pairs = fits.get("order_of_chips")
    if pairs:
        seen = {"fit": "in fit (asked 0.94)", "chip": "chip left out (asked 0.6)"}
        rows = [[esc(seen[k]), f"{v['tau']:.3f}", str(v["n"])] for k, v in pairs.items()]
        parts += ["<h3>Order of chips by time per output token</h3>", table(("each chip of a pair", "Kendall tau", "pairs"), rows)]
    return "".join(parts)


def _chips_unseen(rows: Sequence[Mapping[str, Any]]) -> str:
    """Errors on chips of which no row was fitted, where a folder of such rows lies beside the page."""
    if not rows:
        return ""
    cells = [
        [
            esc(r["chip"]),
            esc(r["constants"]),
            esc(r["what"]),
            str(r["n"]),
            percent(r["median"]),
            percent(r["p90"]),
            f"{100 * r['bias']:+.0f} %",
        ]
        for r in rows
    ]
    return (
        "<h3>Chips of which no row was ever fitted</h3><p>Published runs kept apart from the measurements (<code>unseen</code> beside this "
        "page, with sources): what the datasheet and the constants of another chip, or of the family, predict.</p>"
    ) + table(("chip", "constants of", "what", "rows", "median", "90 % below", "median signed"), cells)


def page(
    done: Sequence[Outcome],
    answer: Mapping[str, Any],
    special: Sequence[Mapping[str, Any]],
    fits: Mapping[str, Any],
    unseen: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole page.

    Args:
        done: Outcomes of every row. answer: What ``validate`` returns of them.
        special: Rows of ``special.verdicts``. fits: What ``dse calibrate --cross`` wrote, or nothing.
        unseen: Rows of ``unseen.by_chip``.
    """
    colours = _colours(done)
    kept = [o for o in done if o.compared and not o.excluded_by]
    errors = np.abs([o.error for o in kept])
    lead = (
        f"{answer['rows']} published rows, {answer['predicted']} of them predicted, {len(kept)} compared: median error "
        f"{percent(float(np.median(errors)))}, 90th percentile {percent(float(np.percentile(errors, 90)))}."
    )
    skipped = [[esc(s["file"]), str(s["count"]), esc(s["reason"])] for s in answer["skipped"]]
    excluded = [[esc(e["id"]), str(e["count"]), esc(e["reason"])] for e in answer["exclusions"]]
    sections = (
        ("reached", "Reached and asked",
         "<p>Errors are |predicted / measured - 1|. Operators: unweighted means over groups of chip and format, L40S apart; systems: "
         "over rows. Constants: how many were fitted to these rows, all chips together. ✓: what was asked is reached.</p>"
         + summary_table(done, fits) + "".join(f"<p>{esc(text)}</p>" for text in S.CONVENTIONS)),
        ("against", "Predicted against measured",
         "<p>Shaded: 10 and 25 %. Excluded rows are left out; large kinds are thinned evenly.</p>"
         + F.legend(list(colours.items()))
         + against_figures(done, colours)),
        ("residuals", "Residuals", F.legend(list(colours.items())) + residual_figures(done, colours)),
        ("order", "Order of layouts, loads and chips", order_table(done)),
        ("unseen", "What a fit has not seen",
         _chips_unseen(unseen) + (_cross(fits) or "<p>Not computed: <code>dse calibrate --cross FILE.json</code>.</p>")),
        ("noise", "What lies in the measurements", noise_table(done)),
        ("special", "Special chips and claims", special_table(special)),
        ("worst", "Worst rows", worst_table(done)),
        ("groups", "Every operator and chip", fold(f"{sum(1 for g in answer['groups'])} groups, those by chip", groups_table(answer))),
        ("left-out", "What is left out",
         table(("rule", "rows", "reason"), excluded, "Excluded: rows that measure something else than their columns say")
         + table(("table", "rows", "reason"), skipped, "Skipped: rows without a prediction")),
    )  # fmt: skip
    links = "".join(f'<a href="#{key}">{esc(name)}</a>' for key, name, _ in sections)
    body = "".join(f'<h2 id="{key}">{esc(name)}</h2>{content}' for key, name, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Validation</title><style>{CSS.read_text(encoding='utf-8')}{OWN_CSS}</style></head><body>"
        f'<h1>Predicted against measured</h1><div class="answer"><p class="first">{lead}</p></div><nav>{links}</nav>{body}</body></html>\n'
    )
