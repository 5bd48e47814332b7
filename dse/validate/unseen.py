"""How far are predictions from measurements of chips that no fit has seen? A folder of rows of their own, by chip and kind of figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dse.catalog import Catalog
from dse.validate.resolve import Chips
from dse.validate.rows import read_folder
from dse.validate.table import Outcome

FOLDER = "unseen"  # beside the page of a validation
CONTROL = "control"  # in it: a chip that fits have seen, from the same tables
ALL = "all"
KINDS = {  # first word of a metric -> what it is called
    "output": "throughput", "total": "throughput", "tpot": "time per output token", "ttft": "time to first token",
    "e2e": "time of a request", "mlperf": "MLPerf, best layout not stated",
}  # fmt: skip


def by_chip(done: Sequence[Outcome], folder: Path, catalog: Catalog) -> list[dict[str, Any]]:
    """Errors of each chip over all its rows and by kind of figure, with the chip or family whose constants it was lent.

    Args:
        done: Outcomes of the rows of a folder.
        folder: That folder, for the datasheet rows of chips that the catalogue does not hold.
        catalog: The catalogue.
    """
    chips = Chips(catalog, read_folder(folder)[1])
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    lent: dict[str, str] = {}
    for o in done:
        if o.compared and not o.excluded_by:
            for kind in (ALL, KINDS.get(o.metric.split("_")[0], o.metric)):
                found[o.chip, kind].append(o.error)
            on = chips.find(o.row.get("chip", ""))
            lent[o.chip] = on.constants.id if on else ""
    rows = []
    for (chip, kind), errors in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != ALL, item[0][1])):
        sizes = np.abs(errors)
        median, p90 = (float(np.percentile(sizes, q)) for q in (50, 90))
        rows.append(
            {"chip": chip, "constants": lent[chip], "what": kind, "n": len(errors)}
            | {"median": median, "p90": p90, "bias": float(np.median(errors))}
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of ``by_chip`` as a table of Markdown."""
    lines = ["| chip | constants of | what | rows | median error | 90 % below | median signed |", "|---|---|---|---:|---:|---:|---:|"]
    for r in rows:
        whole = r["what"] == ALL
        head = (r["chip"], r["constants"]) if whole else ("", "")
        figures = (f"{r['n']:,}", f"{100 * r['median']:.1f} %", f"{100 * r['p90']:.0f} %", f"{100 * r['bias']:+.0f} %")
        lines.append(f"| {' | '.join((*head, r['what'], *figures))} |")
    return "\n".join(lines)
