"""What do the analyses of a study find? One module a kind: the chips it wants bred, and its answer as a Dataset of its own."""

from __future__ import annotations

from collections.abc import Mapping

from dse.analysis.answers.balance import BALANCE
from dse.analysis.answers.clusters import CLUSTERS
from dse.analysis.answers.context import CONTEXT
from dse.analysis.answers.demand import DEMAND
from dse.analysis.answers.formats import FORMATS
from dse.analysis.answers.ground import Ground, Kind, prefixed
from dse.analysis.answers.ownership import OWNERSHIP
from dse.analysis.answers.single_user import SINGLE_USER
from dse.analysis.answers.volume import VOLUME

__all__ = ["KINDS", "Ground", "Kind", "prefixed"]

KINDS: Mapping[str, Kind] = {
    "balance": BALANCE,
    "clusters": CLUSTERS,
    "context": CONTEXT,
    "demand": DEMAND,
    "formats": FORMATS,
    "ownership": OWNERSHIP,
    "single_user": SINGLE_USER,
    "volume": VOLUME,
}
