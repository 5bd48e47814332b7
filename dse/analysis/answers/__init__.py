"""What do the analyses of a study find? One module a kind: the chips it wants bred, and its answer as a Dataset of its own."""

from __future__ import annotations

from collections.abc import Mapping

from dse.analysis.answers.demand import DEMAND
from dse.analysis.answers.ground import Ground, Kind, prefixed

__all__ = ["KINDS", "Ground", "Kind", "prefixed"]

KINDS: Mapping[str, Kind] = {
    "demand": DEMAND,
}
