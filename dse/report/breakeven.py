"""What would flip the answer? The flip table of all assumptions, and the break-even of a pair. ``info`` and ``draw``."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse.report import draw as D
from dse.report import names as N
from dse.report import page as P
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W
from dse.report.uncertainty import label

SHOWN = 14  # levers in the figure
FLAT = 1.1  # ratio of the ends of a break-even line below which it says nothing of a pair
LISTED = 25  # rows of the table
NOBODY = ""  # leads where neither side can be built


@dataclass(frozen=True)
class Flip:
    """One way to turn the ranking round: a lever, its multiple, who leads then, and the multiples of its stated interval."""

    lever: str
    multiple: float  # designs follow the lever, where the result knows
    leader: str
    inside: bool
    low: float
    high: float
    fixed: float = float("nan")  # multiple with the front's designs; nan: none within reach
    anew: bool = False  # whether families were designed anew at every multiple that was tried
    envelope: float = float("nan")  # first estimate of that, by one step of the envelope theorem from the flip of the front's designs

    @property
    def moved(self) -> float:
        """How far designs that follow move the flip: ratio of the distances from the stated value (logarithms); nan: not known."""
        return float(np.log(self.multiple) / np.log(self.fixed)) if np.isfinite(self.fixed) else float("nan")


@dataclass(frozen=True)
class FlipsInfo:
    """Flips of one comparison, those nearest to the stated values first; levers that never flip it by name."""

    name: str
    against: str
    leader: str
    flips: tuple[Flip, ...]
    never: tuple[str, ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "lever": f.lever,
                "multiple": f.multiple,
                "multiple_of_fixed_designs": f.fixed if np.isfinite(f.fixed) else "",
                "multiple_of_envelope_estimate": f.envelope if np.isfinite(f.envelope) else "",
                "designed_anew": int(f.anew),
                "cheapest_beyond": f.leader,
                "inside_interval": int(f.inside),
                "low": f.low,
                "high": f.high,
            }
            for f in self.flips
        ]


@dataclass(frozen=True)
class PairInfo:
    """Break-even of two levers: multiples of one against the other."""

    name: str
    levers: tuple[str, str]
    line: tuple[tuple[float, float], ...]
    leader: str
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [{f"multiple of {self.levers[0]}": a, f"multiple of {self.levers[1]}": b} for a, b in self.line]


def comparisons(ds: xr.Dataset) -> list[str]:
    """Whom the winner was compared with: ``families``, ``existing``."""
    return [str(a) for a in ds["against"].values] if "flip_multiple" in ds else []


def _facts(ds: xr.Dataset, against: str) -> dict[str, Any]:
    return next(f for f in V.attr(ds, "breakeven", []) if f["against"] == against)


def follows(ds: xr.Dataset) -> bool:
    """Whether the nearest flips were found again with designs that follow the lever."""
    return "flip_followed" in ds


def flips(ds: xr.Dataset, against: str) -> FlipsInfo:
    """All flips of one comparison, the nearest in each lever."""
    table = ds.sel(against=against)
    found, never, gone = [], [], []
    first = _facts(ds, against)["leader"]
    anew = follows(ds)
    multiples, leaders = (table[n].transpose("lever", "way").values for n in ("flip_multiple", "flip_leader"))
    fixed, done, estimates = multiples, np.zeros(multiples.shape, bool), np.full(multiples.shape, np.nan)
    if anew:
        new, who, done = (
            table[n].transpose("lever", "way").values for n in ("flip_reoptimised", "flip_reoptimised_leader", "flip_followed")
        )
        done, estimates = done > 0, table["flip_envelope"].transpose("lever", "way").values
        multiples, leaders = np.where(done, new, fixed), np.where(done, who, leaders)
    intervals, curves = ds["lever_interval"].transpose("lever", "way").values, table["lead"].transpose("lever", "multiple").values
    for k, lever in enumerate(ds["lever"].values):
        if not np.isfinite(multiples[k]).any():
            if np.isfinite(curves[k]).any() or done[k].any():
                never.append(str(lever))
            gone += [str(lever)] if done[k].any() else []
            continue
        way = int(np.nanargmin(np.abs(np.log(multiples[k]))))
        x, low, high = float(multiples[k, way]), *(float(x) for x in intervals[k])
        leader = str(leaders[k, way])
        leader = NOBODY if leader == first else leader  # both drop out: no chip of either can be built
        held = float(fixed[k, way]) if done[k, way] else float("nan")
        found.append(Flip(str(lever), x, leader, bool(low <= x <= high), low, high, held, bool(done[k, way]), float(estimates[k, way])))
    found.sort(key=lambda f: abs(np.log(f.multiple)))
    caption = _caption(first, against, found, [n for n in never if n not in gone], gone, anew)
    return FlipsInfo(
        f"flips-{against}", against, first, tuple(found), tuple(never), caption, f"Multiples at which the ranking changes. {caption}"
    )


def times_text(multiple: float) -> str:
    """A multiple for people.

    >>> times_text(0.5), times_text(3.456)
    ('divided by 2', 'times 3.46')
    """
    return f"times {W.number(multiple)}" if multiple >= 1 else f"divided by {W.number(1 / multiple)}"


def _estimate(f: Flip) -> str:
    return html.escape(times_text(f.envelope)) if np.isfinite(f.envelope) else "–"


def _who(f: Flip) -> str:
    return "nobody" if f.leader == NOBODY else label(f.leader)


MOVED = 0.1  # change of a flip's distance from which designs that follow are said to matter


def _caption(leader: str, against: str, found: list[Flip], never: list[str], gone: list[str], anew: bool) -> str:
    whom = "the other families" if against == "families" else "the chips that exist"
    inside = [f for f in found if f.inside]
    text = (
        f"{label(leader)} against {whom}: {len(found)} assumptions, changed alone by a factor of at most 100, would turn the ranking round"
    )
    text += f", {len(inside)} of them inside of their stated intervals" if found else ""
    if found:
        said = [f"{N.assumption(f.lever)} {times_text(f.multiple)} ({_who(f)} would lead)" for f in found[:3]]
        text += f". Nearest: {'; '.join(said)}"
    if never:
        text += f". No multiple within reach does it for {', '.join(never[:6])}"
    if gone:
        text += f". With the front's designs held, but not once designs follow, {', '.join(map(N.assumption, gone))} would do it as well"
    if found and anew:
        again = [f for f in found if f.anew]
        far = [f for f in again if not abs(f.moved - 1) <= MOVED]
        text += (
            f". {len(again)} of these, among the nearest, were looked for with families designed anew at every multiple: the designs of "
            f"the front alone would have put {len(far)} of them elsewhere by more than {W.percent(MOVED)} of the way. "
            "The others are flips of the front's designs"
        )
    return text + "."


def pair(ds: xr.Dataset, against: str) -> PairInfo | None:
    """Break-even of the two levers that flip a comparison most easily."""
    facts = _facts(ds, against)
    known = V.attr(ds, "pairs_reoptimised", {}).get(against) or facts["line"]
    line = [(float(a), float(b)) for a, b in known if b is not None and np.isfinite(float(b))]
    if not facts["pair"] or len(line) < 2 or max(y for _, y in line) < FLAT * min(y for _, y in line):
        return None  # the second lever alone decides
    one, two = facts["pair"]
    a, b = line[0]
    z, y = line[-1]
    caption = (
        f"On the line {label(facts['leader'])} and its cheapest rival cost the same: with {one} {times_text(a)} the ranking changes "
        f"at {two} {times_text(b)}, with {one} {times_text(z)} at {two} {times_text(y)}."
    )
    return PairInfo(f"pair-{against}", (one, two), tuple(line), facts["leader"], caption, f"Break-even line of {one} and {two}. {caption}")


def table(record: FlipsInfo) -> str:
    """The flip table of one comparison."""
    rows = [
        [
            f'<span title="{html.escape(f.lever)}">{html.escape(N.assumption(f.lever))}</span>', html.escape(times_text(f.multiple)),
            html.escape(_who(f)), html.escape(times_text(f.fixed if f.anew else f.multiple)), _estimate(f),
            "yes" if f.anew else "no",
            f"{W.number(f.low)} to {W.number(f.high)}" if np.isfinite(f.low) else "–", "yes" if f.inside else "no",
        ]
        for f in record.flips[:LISTED]
    ]  # fmt: skip
    head = [
        "Assumption",
        "Ranking changes when it is",
        "Cheapest then",
        "With the front's designs held",
        "One envelope step from there",
        "Families designed anew",
        "Stated interval (multiples)",
        "Inside it",
    ]
    return T.table(head, rows, "cases", html.escape(f"Flip table: {label(record.leader)} against {record.against}")) if rows else ""


def draw_flips(record: FlipsInfo) -> D.Canvas:
    """A bar from 1 to the flip on a logarithmic axis, the stated interval as a line."""
    shown = record.flips[:SHOWN]
    canvas = D.Canvas(record.name, 9.5, 1.0 + 0.27 * len(shown))
    axes = canvas.figure.subplots()
    names = {_who(f) for f in shown}
    for i, f in enumerate(shown):
        hue = D._family(f.leader)[0] if f.leader not in ("existing", NOBODY) else "#555555"
        axes.plot([1.0, f.multiple], [i, i], color=hue, lw=7, solid_capstyle="butt", alpha=0.75)
        look: dict[str, Any] = {"color": hue} if f.anew else {"mfc": D.PAPER, "mec": hue, "mew": 1.3, "ls": ""}
        axes.plot([f.multiple], [i], marker="D", ms=5, **look, gid=canvas.tip(f"{f.lever}: {times_text(f.multiple)}, then {_who(f)}"))
        if np.isfinite(f.fixed):
            said = f"{f.lever}: {times_text(f.fixed)} with the designs of the front held"
            axes.plot([f.fixed], [i], marker="D", ms=5.5, mfc=D.PAPER, mec=hue, mew=1.3, ls="", gid=canvas.tip(said))
        if np.isfinite(f.low):
            axes.plot([f.low, f.high], [i, i], color=D.INK, lw=1.3)
        if len(names) > 1:
            side = "left" if f.multiple > 1 else "right"
            axes.text(f.multiple, i - 0.33, f" {_who(f)} ", fontsize=6, color=D.SOFT, ha=side, va="bottom")
    axes.axvline(1.0, color=D.SOFT, lw=0.9)
    reach = max([2.0, *(max(x, 1 / x) for f in shown for x in (f.multiple, f.fixed) if np.isfinite(x))]) * 1.6
    axes.set(xscale="log", xlim=(1 / reach, reach), ylim=(len(shown) - 0.4, -0.8))
    D._log_axis(axes.xaxis, 1 / reach, reach)
    axes.set_yticks(range(len(shown)), [N.assumption(f.lever) for f in shown], fontsize=7)
    axes.tick_params(axis="y", length=0)
    beyond = f"; beyond it: {names.pop()}" if len(names) == 1 else ""
    axes.set_xlabel(f"multiple at which the ranking changes; line: 90 % interval\nfull: designs follow, hollow: designs held{beyond}")
    axes.grid(True, axis="x")
    return canvas


def draw_pair(record: PairInfo) -> D.Canvas:
    """The break-even line, with the stated values marked."""
    canvas = D.Canvas(record.name, 5.2, 3.6)
    axes = canvas.figure.subplots()
    x, y = [p[0] for p in record.line], [p[1] for p in record.line]
    axes.plot(x, y, color=D._family(record.leader)[0], lw=1.8, marker="o", ms=3.5)
    axes.plot([1.0], [1.0], marker="*", ms=10, color=D.INK)
    axes.annotate("stated values", (1.0, 1.0), xytext=(9, 0), textcoords="offset points", fontsize=7.5, va="center")
    axes.set(xscale="log", yscale="log")
    D._log_axis(axes.xaxis, min([*x, 0.5]), max([*x, 2.0]))
    D._log_axis(axes.yaxis, min([*y, 0.5]), max([*y, 2.0]))
    axes.set_xlabel(f"multiple of {record.levers[0]}")
    axes.set_ylabel(f"multiple of {record.levers[1]}")
    axes.grid(True)
    return canvas


def followed(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Flips that were looked for again with designs that follow; numbers that are not finite come as words."""
    return [
        {k: float(v) if k in ("multiple", "slope", "fixed") else v for k, v in row.items()}
        | {n: [float(x) for x in row[n]] for n in ("before", "after")}
        for row in V.attr(ds, "flips_reoptimised", [])
    ]


def _side(leader: str, rival: str, side: Sequence[float]) -> str:
    """What a search found on one side of a flip: who leads, by how much, at which multiple."""
    multiple, lead = side
    first, second = (leader, rival) if lead > 0 else (rival, leader)
    by = f"is {W.percent(float(np.expm1(abs(lead))))} cheaper" if np.isfinite(lead) else "alone meets the limits"
    by = by.replace("cheaper", f"below {label(second)}") if np.isfinite(lead) else by
    return f"{times_text(multiple)} {label(first)} {by}"


def checked(ds: xr.Dataset) -> str:
    """What searches from nothing say of the nearest flips, just before and just after; empty where not asked."""
    asked = [r for r in followed(ds) if r["confirmed"] is not None]
    if not asked:
        return ""
    held = sum(bool(r["confirmed"]) for r in asked)
    sides = [f"{N.assumption(r['lever'])}: {', '.join(_side(r['leader'], r['rival'], r[n]) for n in ('before', 'after'))}" for r in asked]
    return (
        "Searches that start from nothing, just before and just after a flip, confirm "
        f"{held} of the {len(asked)} nearest ({'; '.join(sides)})."
    )


def section(page: P.Page) -> None:
    """What would flip the answer: a figure and a table a comparison, and the pairs."""
    ds = page.ds
    names = comparisons(ds)
    if not names:
        return
    page.add('<h2 id="flips">What would flip the answer?</h2>')
    for against in names:
        record = flips(ds, against)
        if record.flips:
            page.add(P.figure(page, record, draw_flips, "flips", [V.COST]), P.fold("All flips", table(record)))
        else:
            page.add(f"<p>{html.escape(record.caption)}</p>")
        page.add(f"<p>{html.escape(checked(ds))}</p>" if against == "families" and checked(ds) else "")
        two = pair(ds, against)
        if two:
            page.add(P.figure(page, two, draw_pair, "flips", [V.COST]))
