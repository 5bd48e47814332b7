"""In what order is a result analysed? Its study and catalogue are read again, and every analysis writes what it finds into the Dataset.

``quick`` is the part that every run does; ``analyse`` does the whole, part by part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dse.analysis import uncertainty
from dse.analysis.compare import competitors_of
from dse.catalog import Catalog
from dse.errors import InputError
from dse.questions import questions_of
from dse.search.designs import Questions
from dse.study import Study, read_study

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[float, float, str], None]
SAMPLES, OTHERS, EXPLAINED = 16384, 4096, 1024  # of the headline case, of the other cases, of Saltelli's design
QUICK = (8192, 1024, 256)  # the same inside of a run
LEAST_BUDGET = 1000  # chips: smaller runs are trials, which `dse analyse` may sample


def study_of(ds: xr.Dataset, catalog: Catalog) -> Study:
    """The study of a result, if its file and the catalogue are still what they were.

    Raises:
        InputError: they changed since.
    """
    study = read_study(str(ds.attrs["study"]), catalog)
    now = {"study_sha256": study.sha256, "catalog_sha256": catalog.sha256}
    problems = [
        f"result: {k} — found {str(ds.attrs.get(k))[:12]}, allowed {v[:12]} of now: run the study again"
        for k, v in now.items()
        if ds.attrs.get(k) != v
    ]
    if problems:
        raise InputError(problems)
    return study


def with_uncertainty(
    ds: xr.Dataset,
    study: Study,
    catalog: Catalog,
    questions: Questions,
    seed: int,
    sizes: tuple[int, int, int] = (SAMPLES, OTHERS, EXPLAINED),
    progress: Progress = lambda *_: None,
) -> xr.Dataset:
    """The Dataset with bands, probabilities and Sobol indices; ``sizes``: samples of the headline case, of others, of the indices."""
    if not (ds["status"] == "hypothetical").any():
        return ds
    found: dict[tuple[str, str], uncertainty.Sampled] = {}
    for i, case in enumerate(questions.cases):
        count = sizes[0] if i == questions.headline_case else sizes[1]
        found[case.model_id, case.workload_id] = uncertainty.case_samples(ds, study, catalog, case, count, seed)
        progress(i + 1, len(questions.cases), "uncertainty")
    out = uncertainty.into(ds, found)
    head = questions.cases[questions.headline_case]
    sampled = found[head.model_id, head.workload_id]
    out.attrs["uncertainty"] = json.dumps({"samples": sizes[0], "samples_of_other_cases": sizes[1], "seed": seed, **_counted(sampled)})
    limit = min(range(len(questions.limits_s)), key=lambda t: abs(questions.limits_s[t] - study.headline.tpot))
    competitors = competitors_of(ds, head, uncertainty.spaces_of(study, catalog))
    told = uncertainty.explain(sampled, catalog, competitors, questions.headline_scenario, limit, sizes[2], seed)
    return uncertainty.explained_into(out, told, sampled.factors) if told else out


def _counted(s: uncertainty.Sampled) -> Mapping[str, int]:
    shapes = [f.distribution for f in s.factors]
    return {"inputs": len(shapes), "lognormal": shapes.count("lognormal"), "triangular": shapes.count("triangular")}


def quick(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions, seed: int, budget: int, progress: Progress) -> xr.Dataset:
    """What a run of a study of some size adds to its Dataset."""
    if budget < LEAST_BUDGET:
        return ds
    return with_uncertainty(ds, study, catalog, questions, seed, QUICK, progress)


WHAT = ("uncertainty",)


def analyse(
    ds: xr.Dataset, catalog: Catalog, what: tuple[str, ...], seed: int | None = None, progress: Progress = lambda *_: None
) -> xr.Dataset:
    """The Dataset with the full analyses that are asked for.

    Raises:
        InputError: the study or the catalogue changed since, or the result is one of claims.
    """
    if ds.attrs.get("kind") == "claims":
        raise InputError("result — found a result of claims, allowed one of a search")
    study = study_of(ds, catalog)
    questions = questions_of(study, catalog)
    chosen = int(ds.attrs.get("seed", study.seed)) if seed is None else seed
    if "uncertainty" in what:
        ds = with_uncertainty(ds, study, catalog, questions, chosen, progress=progress)
    return ds
