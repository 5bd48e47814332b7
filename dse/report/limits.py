"""What limits where? Maps of the binding resource over context and batch, one panel a family and promised speed. ``info`` and ``draw``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import info as I
from dse.report import page as P
from dse.report import view as V
from dse.report import words as W

MOST = 3  # families shown: the cheapest ones at the headline's limit
LOST = {"capacity": "#222222", "power": "#F0E442"}


@dataclass(frozen=True)
class MapPanel:
    """Names of what binds, rows of contexts by columns of batches; ``met``: where the promise is kept."""

    title: str
    family: str
    limit_s: float
    states: tuple[tuple[str, ...], ...]
    met: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class MapInfo:
    """Panels by family (rows) and promise (columns)."""

    name: str
    contexts: tuple[float, ...]
    batches: tuple[float, ...]
    panels: tuple[tuple[MapPanel, ...], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {"family": p.family, "tpot_limit_s": p.limit_s, "context_token": c, "batch": b, "binds": s, "within_limit": int(m)}
            for line in self.panels
            for p in line
            for c, states, met in zip(self.contexts, p.states, p.met, strict=True)
            for b, s, m in zip(self.batches, states, met, strict=True)
        ]


def name_of(state: str) -> str:
    """A state for people.

    >>> name_of("capacity"), name_of("kv")
    ('memory is full', 'KV cache')
    """
    return {"capacity": "memory is full", "power": "power (throttled)"}.get(state, glossary.part(state))


def limit_map(ds: xr.Dataset) -> MapInfo | None:
    """The map at three promises for the cheapest families of the headline case; None where the Dataset has none."""
    if "limit_map" not in ds:
        return None
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    here = V.limit_index(v, limit_s)
    meaning = str(ds["limit_map"].attrs["flag_meanings"]).split()
    panels = []
    for family, _, _ in V.winners(v, here)[:MOST]:
        line = []
        for t in I.shown_limits(ds):
            cell = ds.sel(elasticity_family=family).isel(tpot_limit=t)
            codes, times = (cell[n].transpose("context", "map_batch").values for n in ("limit_map", "limit_map_tpot_s"))
            if (codes < 0).all():
                continue
            limit = float(v.limits_s[t])
            states = tuple(tuple(meaning[int(c)] for c in row) for row in codes)
            met = tuple(tuple(bool(x) for x in row) for row in (times <= limit) & (codes != meaning.index("capacity")))
            line.append(MapPanel(f"{glossary.label(family)}, {W.quantity('tpot_limit', limit)}", family, limit, states, met))
        if line:
            panels.append(tuple(line))
    if not panels:
        return None
    contexts, batches = (tuple(float(x) for x in ds[n].values) for n in ("context", "map_batch"))
    caption = _caption(ds, case, panels)
    return MapInfo("limits", contexts, batches, tuple(panels), caption, f"Maps of what binds, {sum(map(len, panels))} panels. {caption}")


def _caption(ds: xr.Dataset, case: V.Case, panels: list[tuple[MapPanel, ...]]) -> str:
    said = []
    for line in panels:
        kept = [s for p in line for states, met in zip(p.states, p.met, strict=True) for s, m in zip(states, met, strict=True) if m]
        counted = sorted(((kept.count(s) / len(kept), s) for s in dict.fromkeys(kept)), reverse=True)[:2] if kept else []
        full = np.mean([s == "capacity" for p in line for row in p.states for s in row])
        binds = " and ".join(f"{name_of(s)} in {W.percent(share)}" for share, s in counted) or "nothing meets the promise"
        said.append(
            f"{glossary.label(line[0].family)}: {binds} of the points within the promise; memory is full in {W.percent(float(full))} of all"
        )
    return f"{V.name_of(ds, case.model)}, layouts of the winners kept (pale: the promise is broken). " + "; ".join(said) + "."


PALE = 0.28  # opacity outside of the promise


def draw_map(record: MapInfo) -> D.Canvas:
    """One coloured cell a point; outside of the promise pale."""
    columns = max(len(line) for line in record.panels)
    canvas = D.Canvas(record.name, 3.6 * columns, 2.5 * len(record.panels) + 0.5)
    grid = canvas.figure.subplots(len(record.panels), columns, squeeze=False, sharex=True, sharey=True)
    states = list(dict.fromkeys(s for line in record.panels for p in line for row in p.states for s in row))
    hues = D.colours([s for s in states if s not in LOST]) | {s: c for s, c in LOST.items() if s in states}
    for axes_row, line in zip(grid, record.panels, strict=True):
        for axes, panel in zip(axes_row, line, strict=False):
            shape = (len(record.contexts), len(record.batches), 4)
            picture = np.zeros(shape)
            for i, j in np.ndindex(*shape[:2]):
                alpha = 1.0 if panel.met[i][j] else PALE
                picture[i, j] = D.mpl.colors.to_rgba(hues[panel.states[i][j]], alpha)
            for i, j in np.ndindex(*shape[:2]):
                axes.add_patch(D.mpl.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, color=tuple(picture[i, j]), lw=0))
            axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5), title=panel.title)
            axes.set_xticks(range(0, shape[1], 2), [W.number(b) for b in record.batches[::2]], fontsize=6.5)
            axes.set_yticks(range(0, shape[0], 2), [W.number(c) for c in record.contexts[::2]], fontsize=6.5)
        for axes in axes_row[len(line) :]:
            axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("batch (requests at the same time)")
    handles = [D.mpl.patches.Patch(color=hues[s], label=name_of(s), alpha=PALE if s in LOST else 1.0) for s in states]  # lost: always pale
    canvas.figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(states)), frameon=False, fontsize=7.5)
    canvas.figure.supylabel("context (input tokens)", fontsize=8)
    return canvas


def section(page: P.Page) -> None:
    """The map, where there is one."""
    record = limit_map(page.ds)
    if record:
        page.add('<h2 id="limit-map">What limits where?</h2>', P.figure(page, record, draw_map, "limits", ["bound", "time_s"]))
