"""What does the first look of a running study show? One picture of cost against speed, long before the result; the report replaces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from dse import glossary
from dse.report import draw as D

NAME = "first_look.png"
SPEED, COST = "interactivity_token_per_s", "usd_per_million_output_token"


def first_look(title: str, limits_s: Sequence[float], costs: Mapping[str, Sequence[float]], dashed: Sequence[str] = ()) -> D.Canvas:
    """Least cost so far of every family at every promise.

    Args:
        title: The case. limits_s: Promises on the mean time per output token. costs: By family [USD/Mtoken], inf where nothing was found;
            what follows a slash in a name is no part of the family's. dashed: Names in ``costs`` of weights below 4 bit.
    """
    canvas = D.Canvas("first-look", D.PANEL_INCH[0] * 1.5, D.PANEL_INCH[1] * 1.15)
    axes = canvas.figure.subplots()
    x = 1.0 / np.asarray(limits_s, float)
    ends, drawn = [], []
    for name, values in costs.items():
        y = np.asarray(values, float)
        at = np.isfinite(y)
        if not at.any():
            continue
        family = name.partition("/")[0]
        hue, marker = D._family(family)
        label = glossary.label(family) + (" (below 4 bit)" if name in dashed else "")
        order = np.argsort(x[at])
        axes.plot(
            x[at][order], y[at][order], color=hue, marker=marker, ms=4.5, lw=1.2, ls=(0, (4, 3)) if name in dashed else "-", label=label
        )
        ends.append(y[at])
        drawn.append(x[at])
    axes.set(xscale="log", yscale="log", title=title)
    if ends:
        low, high = (f(np.concatenate(ends)) for f in (np.min, np.max))
        near, far = (f(np.concatenate(drawn)) for f in (np.min, np.max))
        D._log_axis(axes.yaxis, low, high)
        D._log_axis(axes.xaxis, near, far)
    axes.grid(True)
    axes.set_xlabel(f"{glossary.axis(SPEED)}, promised: faster →")
    axes.set_ylabel(glossary.axis(COST))
    axes.legend(frameon=False, fontsize=7.5)
    note = "First look: some hundred chips of each family on the headline alone. Costs fall as the search goes on."
    canvas.figure.supxlabel(note, fontsize=7, color=D.SOFT)
    return canvas


def write_first_look(
    folder: Path, title: str, limits_s: Sequence[float], costs: Mapping[str, Sequence[float]], dashed: Sequence[str]
) -> Path:
    """Draw the first look into the figures of a result's folder."""
    path = folder / "figures" / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(D.STYLE):
        path.write_bytes(D.png(first_look(title, limits_s, costs, dashed)))
    return path
