"""Does the answer survive other work? Regret of designs made for one case in all the others. ``info`` and ``draw``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import page as P
from dse.report import view as V
from dse.report import words as W

WORST_SHOWN = 2.0  # regret at which the colour is deepest


@dataclass(frozen=True)
class RegretInfo:
    """Regret by row (what the design was made for) and case."""

    name: str
    rows_: tuple[str, ...]
    designs: tuple[str, ...]
    cases: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {"made_for": r, "design": d, "used_for": c, "regret": x}
            for r, d, line in zip(self.rows_, self.designs, self.values, strict=True)
            for c, x in zip(self.cases, line, strict=True)
        ]


def regret(ds: xr.Dataset) -> RegretInfo | None:
    """The table as people read it; None where the Dataset has none."""
    if "regret" not in ds:
        return None
    table = ds["regret"].transpose("regret_row", "model", "workload").values
    ids = [str(d) for d in ds["regret_design"].values]
    family = {str(i): str(f) for i, f in zip(ds["design"].values, ds["family"].values, strict=True)}
    cases = [(str(m), str(w)) for m in ds["model"].values for w in ds["workload"].values]
    names = {" / ".join(c): f"{V.name_of(ds, c[0])}, {V.name_of(ds, c[1])}" for c in cases}
    rows = tuple(names.get(str(r), str(r)) for r in ds["regret_row"].values)
    designs = tuple(f"{glossary.label(family[i])} {i[:6]}" for i in ids)
    values = tuple(tuple(float(x) for x in line) for line in table.reshape(len(rows), -1))
    caption = f"{mix_sentence(ds)} {_caption(rows, designs, tuple(names.values()), values)}".strip()
    return RegretInfo("regret", rows, designs, tuple(names.values()), values, caption, f"Table of regret, {len(rows)} designs. {caption}")


def mix_sentence(ds: xr.Dataset) -> str:
    """Which design serves the study's mix at the least cost, and what the next family costs; empty without a mix."""
    mix = V.attr(ds, "mix", {})
    if not mix or not mix["families"]:
        return ""
    first, *others = mix["families"]
    parts = ", ".join(f"{V.name_of(ds, w)} {W.percent(x)}" for w, x in mix["weights"].items())
    text = (
        f"For a mix of output tokens ({parts}) one design of {glossary.label(first['family'])} ({first['design'][:6]}) is cheapest, "
        f"{W.number(first['cost'])} USD/Mtoken"
    )
    if others:
        text += f"; the next family, {glossary.label(others[0]['family'])}, costs {W.percent(others[0]['cost'] / first['cost'] - 1)} more"
    return text + "."


def _caption(rows: tuple[str, ...], designs: tuple[str, ...], cases: tuple[str, ...], values: tuple[tuple[float, ...], ...]) -> str:
    worst = [max((x if np.isfinite(x) else np.inf for x in line if not np.isnan(x)), default=0.0) for line in values]
    made = [i for i, r in enumerate(rows) if r in cases]
    robust = [i for i, r in enumerate(rows) if r not in cases]
    said = []
    for i in made:
        at = int(np.nanargmax([x if not np.isnan(x) else -1 for x in values[i]]))
        much = "cannot be used" if not np.isfinite(worst[i]) else f"costs {W.percent(worst[i])} more than the best"
        said.append(f"made for {rows[i]} ({designs[i]}), at worst {much}{f' for {cases[at]}' if worst[i] > 0 else ''}")
    text = "A design " + "; ".join(said) + "."
    if robust:
        i = min(robust, key=lambda k: worst[k])
        text += f" The design with the {rows[i]} ({designs[i]}) costs at worst {W.percent(worst[i])} more than the best of any case."
    return text


def draw_regret(record: RegretInfo) -> D.Canvas:
    """A heat map with the numbers in it."""
    canvas = D.Canvas(record.name, 8.8, 1.3 + 0.36 * len(record.rows_))
    axes = canvas.figure.subplots()
    for i, line in enumerate(record.values):
        for j, x in enumerate(line):
            if np.isnan(x):
                continue
            share = min(x / WORST_SHOWN, 1.0) if np.isfinite(x) else 1.0
            axes.add_patch(D.mpl.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=(0.835, 0.369, 0.0, 0.05 + 0.75 * share), lw=0))
            axes.text(j, i, f"+{100 * x:.0f} %" if np.isfinite(x) else "cannot", ha="center", va="center", fontsize=7.5)
    axes.set(xlim=(-0.5, len(record.cases) - 0.5), ylim=(len(record.rows_) - 0.5, -0.5))
    axes.set_xticks(range(len(record.cases)), [c.replace(", ", "\n") for c in record.cases], fontsize=7)
    axes.set_yticks(range(len(record.rows_)), [f"{r}\n({d})" for r, d in zip(record.rows_, record.designs, strict=True)], fontsize=6.5)
    axes.tick_params(length=0)
    axes.set_xlabel("used for (cost above the best design of that case)")
    axes.set_ylabel("made for")
    return canvas


def section(page: P.Page) -> None:
    """The table, where there is one."""
    record = regret(page.ds)
    if record:
        page.add('<h2 id="regret">Does the answer survive other work?</h2>', P.figure(page, record, draw_regret, "regret", [V.COST]))
