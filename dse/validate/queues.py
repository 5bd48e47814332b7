"""How many requests does an offline run have, and how long does it take to serve them all? A finite queue through a number of places.

Requests of a data set with one length each fill all places at once and leave them together: the run is so many full waves and a rest.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache

from dse.paths import data_dir
from dse.validate.engines import base_of

TABLE = "queues.toml"
STATED = re.compile(r"(\d+) requests queued")


@cache
def read_queues() -> dict[tuple[str, float, float], float]:
    """Requests by engine, input tokens and output tokens."""
    with (data_dir("hw_catalog") / TABLE).open("rb") as file:
        raw = tomllib.load(file)
    return {(e, float(i), float(o)): float(n) for t in raw.values() for e in t["engines"] for i, o, n in t["requests"]}


def requests_of(row: Mapping[str, str], engine: str, isl: float, osl: float) -> float | None:
    """Requests of an offline run: what the row says, else the table; None where neither does.

    >>> requests_of({"batch_or_concurrency": "1000 requests queued offline"}, "", 128.0, 128.0)
    1000.0
    >>> requests_of({"batch_or_concurrency": "max (all requests queued)"}, "trtllm-0-14", 128.0, 2048.0)
    3000.0
    """
    said = STATED.search(row.get("batch_or_concurrency", ""))
    return float(said[1]) if said else read_queues().get((base_of(engine), isl, osl))


def waves(requests: float, places: float) -> tuple[float, float]:
    """Full waves, and the requests of the last one that is not full.

    >>> waves(3000.0, 2048.0)
    (1.0, 952.0)
    """
    full = requests // places
    return full, requests - full * places
