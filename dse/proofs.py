"""What does a run itself prove? For each family how near its cheapest design of the headline is to the optimum: cut boxes, not seconds.

A certificate that was issued already for the same question and catalogue, beside the result or in its folder, is taken as it is. What is
missing is proved in a process of its own, while this one goes on with the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.catalog import Catalog, load_catalog
from dse.certificates import LAYOUT, Certificate, certificate_of, problem_of, still_good, write
from dse.study import Study, read_study

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

Start = tuple[Mapping[str, Any], Mapping[str, Any]]  # a design, and its layout with batch and format
FOLDER = "certificates"


def file_of(folder: Path, study: str, family: str, limit_s: float) -> Path:
    """Where `dse certify --out FOLDER` puts a certificate too."""
    return folder / f"{study}-{family}-{1e3 * limit_s:g}ms.json"


def issued(study: Study, catalog: Catalog, family: str, folders: Sequence[Path]) -> Certificate | None:
    """The certificate of the headline's limit that was issued for exactly this question and catalogue, where there is one."""
    found = (still_good(file_of(folder, study.name, family, study.headline.tpot), study, catalog) for folder in folders)
    return next((c for c in found if c is not None), None)


def keep(c: Certificate, folder: Path) -> Path:
    """Write a certificate into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(c, file_of(folder, c.study, c.family, c.tpot_limit_s))


def prove_headline(study: Study, catalog: Catalog, family: str, boxes: int, start: Start | None) -> Certificate | None:
    """A certificate of a family at the headline's limit; None where the bound is not argued for its constants.

    Args:
        boxes: To cut at most: the same certificate on every machine. start: A design that is known.
    """
    try:
        problem = problem_of(study, catalog, family, study.headline.tpot)
        return certificate_of(problem, study, catalog, np.inf, boxes, [] if start is None else [start], finish=False)
    except NotImplementedError:
        return None


def headline_starts(ds: xr.Dataset, study: Study) -> dict[str, Start]:
    """The cheapest design of each family in the headline, weights of 4 bit or more, with its layout."""
    h = study.headline
    at = ds.sel(model=h.model, workload=h.workload, scenario=h.scenario).sel(tpot_limit=h.tpot, method="nearest")
    cost = at["usd_per_million_output_token"].values
    mine = (ds["status"].values == "hypothetical") & (ds["below_4_bit"].values < 1) & np.isfinite(cost)
    decided = [str(n) for n, v in ds.data_vars.items() if v.attrs.get("role") == "decision"]
    found: dict[str, Start] = {}
    for family in dict.fromkeys(ds["family"].values[mine]):
        i = int(np.argmin(np.where(mine & (ds["family"].values == family), cost, np.inf)))
        values = {n: ds[n].values[i] for n in decided}
        design = {n: str(v) if isinstance(v, str) else _plain(float(v)) for n, v in values.items() if v != "" and v == v}
        layout = {n: float(at[n].values[i]) for n in LAYOUT} | {"format": str(at["format_weights"].values[i])}
        found[str(family)] = (design, layout)
    return found


def _plain(x: float) -> float | int:
    return int(x) if x == round(x) and abs(x) < 1e6 else x


@dataclass
class Proofs:
    """Certificates on their way."""

    known: list[Certificate] = field(default_factory=list)
    coming: list[Future] = field(default_factory=list)

    def all(self) -> list[Certificate]:
        """Those that were there and those that are proved, when they are."""
        return [*self.known, *(c for f in self.coming if (c := f.result()) is not None)]


def _in_process(study_path: str, overlay: str | None, family: str, boxes: int, start: Start | None, folder: str | None):
    catalog = load_catalog(overlay)
    study = read_study(study_path)
    c = prove_headline(study, catalog, family, boxes, start)
    if c is not None and folder is not None:
        keep(c, Path(folder))
    return c


@contextmanager
def proving(
    study: Study, catalog: Catalog, overlay: str | None, starts: Mapping[str, Start], folder: Path | None, beside: Sequence[Path]
) -> Iterator[Proofs]:
    """Certificates of the families of a study that says how many boxes may be cut for each; those that are missing in another process.

    Args:
        starts: Known designs by family. folder: Where new certificates are written. beside: Where issued ones may lie.
    """
    proofs, boxes = Proofs(), study.search.certify
    missing = []
    for family in starts if boxes else ():
        c = issued(study, catalog, family, beside)
        if c is None:
            missing.append(family)
        else:
            proofs.known.append(c)
    if not missing:
        yield proofs
        return
    where = None if folder is None else str(folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        proofs.coming = [pool.submit(_in_process, str(study.path), overlay, f, boxes, starts[f], where) for f in missing]
        yield proofs
