"""What is one unit more of a limit or a resource worth? Shadow prices of the certified optima of the headline case, as a table."""

from __future__ import annotations

from html import escape
from typing import Any

import xarray as xr

from dse import glossary
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W

# name: what it is, unit shown, SI units in it
SHOWN: dict[str, tuple[str, str, float]] = {
    "tpot": ("promised time per token", "ms", 1e-3),
    "ttft": ("promised time to first token", "ms", 1e-3),
    "reticle": ("largest die", "mm2", 1.0),
    "interposer": ("largest interposer", "mm2", 1.0),
    "beachfront": ("die edge", "mm", 1e-3),
    "power": ("power of the package", "W", 1.0),
    "heat": ("heat that can leave the dies", "W", 1.0),
    "memory": ("memory of a chip", "GB", 1e9),
    "memory_bandwidth": ("memory bandwidth", "TB/s", 1e12),
    "sram_bandwidth": ("SRAM bandwidth", "TB/s", 1e12),
    "link_bandwidth": ("link bandwidth", "TB/s", 1e12),
    "peak": ("bf16 peak", "PFLOP/s", 1e15),
}


def rows(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Shadow prices at the headline limit, in the units shown and as a share of the certified optimum's cost."""
    limit_s = V.headline(ds)[1]
    costs = {(r["family"], float(r["tpot_limit_s"])): r.get("found_by_the_certificate") for r in V.attr(ds, "certificates", [])}
    found = []
    for r in V.attr(ds, "shadow_prices", []):
        cost = costs.get((r["family"], float(r["tpot_limit_s"])))
        if abs(r["tpot_limit_s"] / limit_s - 1) < 1e-6 and r["name"] in SHOWN and cost:
            what, unit, scale = SHOWN[r["name"]]
            saved = r["usd_per_million_output_token"] * scale
            found.append({"family": r["family"], "what": what, "unit": unit, "saves": saved, "share": saved / cost})
    return found


def section(ds: xr.Dataset) -> str:
    """The table, or nothing where no certificate carries shadow prices."""
    body = [
        [
            escape(glossary.label(r["family"])),
            escape(r["what"]),
            f"1 {escape(r['unit'])}",
            escape(W.number(r["saves"])),
            f"{r['share']:.2%}",
        ]
        for r in rows(ds)
    ]
    if not body:
        return ""
    head = ["Family", "One more unit of", "Unit", "Saves, USD/Mtoken", "of the cost"]
    return (
        "<h3>What one unit more is worth</h3><p>Shadow prices of the certified optima at the headline limit: limits first, then "
        "resources had at no cost in area, power or money. What is not listed does not bind.</p>" + T.table(head, body)
    )
