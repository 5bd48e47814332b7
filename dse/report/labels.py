"""Where can a label stand without touching another label or a mark? A small greedy placer for one matplotlib axes.

Positions around the anchor are tried nearest first; the first free one, or else the least crowded one, is taken. Deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

# directions tried (right first), distances in points
DIRECTIONS = ((1, 0), (1, 0.8), (1, -0.8), (0, 1), (0, -1), (-1, 0.8), (-1, -0.8), (-1, 0))
DISTANCES = (5, 11, 18, 27, 38, 52, 70)
LINE = 1.2  # height of a line over the font size
FAR = 10  # points from which a leader line is drawn
STEP = 4.0  # points between the places of a line that labels keep off
KEY = 8.0  # points that the marker before a text takes


@dataclass(frozen=True)
class Label:
    """Text at an anchor in data coordinates."""

    x: float
    y: float
    text: str
    size: float
    style: dict[str, Any]
    key: dict[str, Any] | None = None  # marker before the text
    gap: float = 0.0  # points kept free around the anchor, beside the least distance


def _width(label: Label) -> float:
    """Width of a label [point], its marker included."""
    font = FontProperties(
        family="DejaVu Sans", weight=label.style.get("fontweight", "normal"), style=label.style.get("fontstyle", "normal")
    )
    return float(TextPath((0, 0), label.text, size=label.size, prop=font).get_extents().width) + 2.0 + (KEY if label.key else 0.0)


def _box(anchor: np.ndarray, direction: tuple[float, float], distance: float, width: float, height: float) -> np.ndarray:
    """x0, y0, x1, y1 of a label, in points."""
    dx, dy = direction
    middle = anchor + np.array([dx * distance + np.sign(dx) * width / 2, dy * (distance + height / 2) if dx == 0 else dy * distance])
    half = np.array([width / 2, height / 2])
    return np.concatenate([middle - half, middle + half])


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float(np.sum(np.clip(wide, 0, None) * np.clip(high, 0, None)))


def _best_box(label: Label, anchor: np.ndarray, frame: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, float]:
    """The least crowded box of a label and its distance from the anchor [point]."""
    width, height = _width(label), label.size * LINE
    best, least, far = _box(anchor, DIRECTIONS[0], DISTANCES[0] + label.gap, width, height), np.inf, float(DISTANCES[0])
    for distance in DISTANCES:
        for direction in DIRECTIONS:
            box = _box(anchor, direction, distance + label.gap, width, height)
            outside = np.clip(frame[:2] - box[:2], 0, None).sum() + np.clip(box[2:] - frame[2:], 0, None).sum()
            cost = (_overlap(box, taken) if len(taken) else 0.0) + outside * height * 4
            if cost < least:
                best, least, far = box, cost, float(distance)
        if least == 0:
            break
    return best, far


def _write(axes: Axes, label: Label, box: np.ndarray, far: float, to_points: float) -> None:
    """Draw text, marker and leader of a label in its box."""
    invert = axes.transData.inverted()
    height = (box[1] + box[3]) / 2
    text_at = invert.transform(np.array([box[0] + (KEY if label.key else 0.0), height]) / to_points)
    axes.text(float(text_at[0]), float(text_at[1]), label.text, ha="left", va="center", fontsize=label.size, zorder=8, **label.style)
    if label.key:
        axes.plot(*invert.transform(np.array([box[0] + KEY / 2 - 1, height]) / to_points), zorder=8, ls="", clip_on=False, **label.key)
    if far >= FAR:
        anchor = axes.transData.transform((label.x, label.y)) * to_points
        end = np.clip(anchor, box[:2], box[2:])
        line = invert.transform(np.array([anchor + (end - anchor) * 0.12, end]) / to_points)
        own = label.key["mfc"] if label.key else label.style.get("color", "black")
        axes.plot(line[:, 0], line[:, 1], lw=0.9 if label.key else 0.5, color=own, alpha=0.7, zorder=7, clip_on=False)


def _along(line: np.ndarray) -> np.ndarray:
    """Points every ``STEP`` along a line (n, 2), all in points.

    >>> _along(np.array([[0.0, 0.0], [12.0, 0.0]]))[:, 0].tolist()
    [0.0, 4.0, 8.0, 12.0]
    """
    if len(line) == 0:
        return line
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0.0, length[-1], int(np.ceil(length[-1] / STEP)) + 1)
    return np.column_stack([np.interp(at, length, line[:, 0]), np.interp(at, length, line[:, 1])])


def place(axes: Axes, labels: Sequence[Label], lines: Sequence[np.ndarray], reserved: np.ndarray | None = None) -> None:
    """Write labels into axes; ``lines`` (n, 2) in data coordinates and ``reserved`` boxes (m, 4) in axes fractions stay uncovered.

    Scales, limits and layout must be final.
    """
    to_points = 72.0 / axes.figure.get_dpi()  # type: ignore[union-attr]
    frame = np.asarray(axes.get_window_extent().extents) * to_points
    boxes = axes.transAxes.transform(np.reshape(() if reserved is None else reserved, (-1, 2))).reshape(-1, 4) * to_points
    dots = np.vstack([np.zeros((0, 2)), *(_along(axes.transData.transform(line) * to_points) for line in lines if len(line))])
    taken = np.vstack([np.column_stack([dots - 2.5, dots + 2.5]), boxes])
    for label in labels:
        box, far = _best_box(label, axes.transData.transform((label.x, label.y)) * to_points, frame, taken)
        taken = np.vstack([taken, box])
        _write(axes, label, box, far, to_points)
