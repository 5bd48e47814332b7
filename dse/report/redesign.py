"""How much do fixed designs miss? Samples in which the leading families were searched anew, against the same with layouts chosen anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse.report import draw as D
from dse.report import page as P
from dse.report import view as V
from dse.report import words as W
from dse.report.uncertainty import label

NONE = 5e-4  # change of a cost below which it counts as the same


@dataclass(frozen=True)
class RedesignInfo:
    """For each family pairs of costs: layouts chosen anew, designs searched anew [USD/Mtoken]."""

    name: str
    families: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {"family": f, "sample": i, "cost_rechosen": a, "cost_reoptimised": b}
            for f, pairs in self.families
            for i, (a, b) in enumerate(pairs)
        ]


def redesign(ds: xr.Dataset) -> RedesignInfo | None:
    """The samples; None where there are none."""
    if "cost_reoptimised" not in ds:
        return None
    chosen, again = (ds[n].transpose("redesigned", "resample").values for n in ("cost_rechosen", "cost_reoptimised"))
    names = [str(f) for f in ds["redesigned"].values]
    families = tuple((f, tuple((float(a), float(b)) for a, b in zip(chosen[i], again[i], strict=True))) for i, f in enumerate(names))
    said = []
    for i, f in enumerate(names):
        both = np.isfinite(chosen[i]) & np.isfinite(again[i])
        if both.any():
            change = again[i][both] / chosen[i][both] - 1
            low, middle, high = (_change(float(np.quantile(change, q))) for q in (0.05, 0.5, 0.95))
            said.append(f"{label(f)} by {middle} in the median (90{W.NARROW}%: {low} to {high})")
    caption = (
        f"In {chosen.shape[1]} samples a search anew, which may also keep the old design at less power, changes the cost of "
        f"{'; of '.join(said)}."
    )
    if len(names) > 1:
        first, then = (np.nan_to_num(x[0], nan=np.inf) < np.nan_to_num(x[1], nan=np.inf) for x in (chosen, again))
        known = np.isfinite(chosen[:2]).any(axis=0) | np.isfinite(again[:2]).any(axis=0)  # the one that is feasible is the cheaper one
        alone = int((known & ~(np.isfinite(chosen[:2]).all(axis=0) & np.isfinite(again[:2]).all(axis=0))).sum())
        turned = int(((first != then) & known).sum())
        caption += f" Which of the two is cheaper changes in {turned} of {int(known.sum())} samples"
        caption += f"; in {alone} of them only one of the two meets the limits." if alone else "."
        caption += "" if turned else " So the ranking does not rest on the designs being fixed; bands of fixed designs reach too far up."
    return RedesignInfo("redesign", families, caption, f"Costs of samples by two ways. {caption}")


def _change(share: float) -> str:
    """A change in per cent, without a sign where it is none.

    >>> _change(1e-6).replace(W.NARROW, " "), _change(-0.321).replace(W.NARROW, " ")
    ('0 %', '−32 %')
    """
    return W.percent(share, signed=True) if abs(share) >= NONE else W.percent(0.0)


def draw_redesign(record: RedesignInfo) -> D.Canvas:
    """Points below the diagonal: what a search anew saves; on it: the old design is kept."""
    canvas = D.Canvas(record.name, 5.4, 4.2)
    axes = canvas.figure.subplots()
    finite = [x for _, pairs in record.families for pair in pairs for x in pair if np.isfinite(x)]
    low, high = min(finite) / 1.2, max(finite) * 1.2
    axes.plot([low, high], [low, high], color=D.SOFT, lw=0.9)
    for family, pairs in record.families:
        hue, marker = D._family(family)
        x, y = [p[0] for p in pairs], [p[1] for p in pairs]
        axes.plot(x, y, ls="", marker=marker, ms=4.5, mfc="none", mec=hue, label=label(family))
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    D._log_axis(axes.xaxis, low, high)
    D._log_axis(axes.yaxis, low, high)
    axes.set_xlabel("designs of the front, layouts chosen anew (USD/Mtoken)")
    axes.set_ylabel("designs searched anew (USD/Mtoken)")
    axes.legend(frameon=False, fontsize=7.5)
    axes.grid(True)
    return canvas


def section(page: P.Page) -> None:
    """The samples, where there are any."""
    record = redesign(page.ds)
    if record:
        page.add('<h3 id="redesign">How much do fixed designs miss?</h3>', P.figure(page, record, draw_redesign, "redesign", [V.COST]))
