"""Where does a result come from? Study, catalogue, versions, commit, assumptions with their sources, bibliography."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dse.catalog import Catalog
from dse.catalog.prices import price_values
from dse.study import Study

UNCERTAIN = ("estimate", "fit", "assumption", "claim")
PACKAGES = ("jax", "numpy", "optuna", "xarray")


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


def assumptions(study: Study, catalog: Catalog, families: Iterable[str]) -> list[dict[str, Any]]:
    """Every estimate, fit, assumption and claim that the hypothetical chips and the prices stand on, with interval and source."""
    listed = [(f"prices {s}", price_values(catalog.records["prices"][s], catalog)) for s in study.scenarios]
    listed += [(f"family {f}", catalog.records["families"][f].values) for f in families]
    listed += [(f"technology {k}", r.values) for k, r in catalog.records["technology"].items()]
    return [
        {"name": f"{where}: {name}", "value": q.value, "unit": q.unit, "low": q.low, "high": q.high, "kind": q.kind, "source": q.source, "note": q.note or ""}
        for where, values in listed
        for name, q in values.items()
        if q.kind in UNCERTAIN and not name.startswith("range.")
    ]  # fmt: skip


def names(study: Study, catalog: Catalog) -> dict[str, str]:
    """Names for people of the models, workloads and scenarios of a study."""
    kinds = (("models", study.models), ("workloads", study.workloads), ("prices", study.scenarios))
    return {i: catalog.records[kind][i].name for kind, ids in kinds for i in ids}


def attributes(study: Study, catalog: Catalog, families: Iterable[str], run: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a study's Dataset; ``run`` holds what only the run knows (seed, budget, counts, times)."""
    h, used = study.headline, assumptions(study, catalog, families)
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
