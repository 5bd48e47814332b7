"""Where does a result come from? Study, catalogue, versions, commit, assumptions with their sources, bibliography."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from dse.catalog import Catalog, Record
from dse.catalog.prices import price_values
from dse.study import Study

UNCERTAIN = ("estimate", "fit", "assumption", "claim")
PACKAGES = ("jax", "numpy", "optuna", "xarray")

# Which derivative of the cost stands for a catalogue value, to first order: value -> {parameter of ``elasticity``: exponent}.
PEAK, BANDWIDTH = {"peak_flop_per_s": 1}, {"memory_bandwidth_byte_per_s": 1, "sram_bandwidth_byte_per_s": 1}
MOVES: dict[str, dict[str, int]] = {
    "constants *: compute efficiency *": PEAK,
    "constants *: memory efficiency *": BANDWIDTH,
    "constants *: host time of a step": {"host_time_s": 1},
    "family *: layer": {"layer_time_s": 1},
    "family *: mac": {"peak_flop_per_s": -1},  # arithmetic units on the same area
    "family *: clock": PEAK,
    "family *: fp4_rate": PEAK,
    "family *: flop": {"energy_per_operation_j": 1},
    "family *: design": {"nre_usd": 1},  # masks are the rest
    "technology power: heat_stacked": PEAK,  # where heat binds, work follows what may leave as heat
    "memories stacked-dram: bandwidth": BANDWIDTH,
}
OWN = {"technology power: heat_stacked": "stacked_dram", "memories stacked-dram": "stacked_dram"}
ONLY_FP4 = "fp4_rate"  # counts where weights are multiplied in 4 bit
GROUPS = {  # rows of a family's constants file that the report tells, as medians over the formats: GEMM and attention
    "compute efficiency of GEMM": "gemm.*.compute_efficiency",
    "memory efficiency of GEMM": "gemm.*.memory_efficiency",
    "host time of a step": "system.host_s",
}


def git_state() -> dict[str, str]:
    """Commit of the checkout that holds the package, if there is one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return {}

    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    try:
        return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": "yes" if ask("status", "--porcelain") else "no"}
    except (OSError, subprocess.SubprocessError):
        return {}


def versions() -> dict[str, str]:
    """Versions of the package and of what it computes with."""
    from dse import __version__

    known = {f"{p}_version": version(p) for p in PACKAGES}
    return {"dse_version": __version__, **known, "python": platform.python_version(), "platform": platform.platform()}


def constants_rows(record: Record) -> list[dict[str, Any]]:
    """The engine constants of a family in a few rows: medians over the weight formats, with the median ends of their intervals."""
    rows = []
    for said, pattern in GROUPS.items():
        found = [q for name, q in record.values.items() if fnmatchcase(name, pattern) and name.count(".") == pattern.count(".")]
        if not found:
            continue
        first = found[0]
        row = {
            end: median([getattr(q, end) for q in found])
            for end in ("value", "low", "high")
            if all(getattr(q, end) is not None for q in found)
        }
        note = f"median of {len(found)} weight formats" if len(found) > 1 else first.note or ""
        rows.append(
            {"name": f"constants {record.id}: {said}", "low": None, "high": None, **row}
            | _words(first.unit, first.kind, first.source, note)
        )
    return rows


def _words(unit: str, kind: str, source: str, note: str) -> dict[str, Any]:
    return {"unit": unit, "kind": kind, "source": source, "note": note}


def concerns(name: str) -> dict[str, Any]:
    """What an assumption moves, and whose it is.

    >>> concerns("family sram: mac")
    {'moves': {'peak_flop_per_s': -1}, 'family': 'sram'}
    """
    moves = next((m for pattern, m in MOVES.items() if fnmatchcase(name, pattern)), None)
    found: dict[str, Any] = {"moves": moves} if moves else {}
    where = name.partition(": ")[0]
    kind, _, owner = where.partition(" ")
    family = owner if kind in ("family", "constants") else next((f for start, f in OWN.items() if name.startswith(start)), None)
    found |= {"family": family} if family else {}
    return found | ({"format": "fp4"} if name.endswith(ONLY_FP4) else {})


def assumptions(study: Study, catalog: Catalog, families: Iterable[str], added: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Every estimate, fit, assumption and claim that the hypothetical chips and the prices stand on, with interval and source.

    Of chips that exist, those values of a user's own file (``added`` or named by the study) that carry no source but the file.

    Rows carry what they move (``moves``: parameter of the elasticities to exponent), whose they are (``family``; else shared by all),
    and the weight format they need (``format``), where these are known.
    """
    families = list(families)
    listed = [(f"prices {s}", price_values(catalog.records["prices"][s], catalog)) for s in study.scenarios]
    listed += [(f"family {f}", catalog.records["families"][f].values) for f in families]
    listed += [(f"technology {k}", r.values) for k, r in catalog.records["technology"].items()]
    if "stacked_dram" in families:
        listed += [("memories stacked-dram", catalog.records["memories"]["stacked-dram"].values)]
    for chip in dict.fromkeys([*study.real_chips, *added]):
        record = catalog.records["chips"][chip]
        listed.append((f"chips {chip}", {name: q for name, q in record.values.items() if q.source == record.file}))
    rows = [
        {"name": f"{where}: {name}", "value": q.value, "low": q.low, "high": q.high, **_words(q.unit, q.kind, q.source, q.note or "")}
        for where, values in listed
        for name, q in values.items()
        if q.kind in UNCERTAIN and not name.startswith("range.")
    ]
    rows += [row for f in families if f in catalog.records["constants"] for row in constants_rows(catalog.records["constants"][f])]
    return [row | concerns(row["name"]) for row in rows]


def names(study: Study, catalog: Catalog) -> dict[str, str]:
    """Names for people of the models, workloads and scenarios of a study."""
    kinds = (("models", study.models), ("workloads", study.workloads), ("prices", study.scenarios))
    return {i: catalog.records[kind][i].name for kind, ids in kinds for i in ids}


def attributes(study: Study, catalog: Catalog, families: Iterable[str], run: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a study's Dataset; ``run`` holds what only the run knows (seed, budget, counts, times)."""
    h, used = study.headline, assumptions(study, catalog, families, run.get("added_chips", ()))
    keys = {a["source"] for a in used} | {q.source for c in study.real_chips for q in catalog.records["chips"][c].values.values()}
    return {
        "title": study.title,
        "question": study.question,
        "study": study.name,
        "study_toml": study.text,
        "study_sha256": study.sha256,
        "catalog_sha256": catalog.sha256,
        "headline": {"model": h.model, "workload": h.workload, "scenario": h.scenario, "tpot_limit": h.tpot},
        "names": names(study, catalog),
        "assumptions": used,
        "bibliography": {k: catalog.sources[k] for k in sorted(keys) if k in catalog.sources},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **run,
        **versions(),
        **git_state(),
    }
