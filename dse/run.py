"""In what order is a study run? Read, search every shard, evaluate the winners exactly, save, report."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analyse import quick
from dse.analysis.elasticity import winner_elasticities
from dse.answers import answered, bred
from dse.catalog import Catalog, load_catalog
from dse.certificates import Certificate, beside, by_family, rows, worth
from dse.earlier import find_result
from dse.errors import InfeasibleError, InputError
from dse.hunt import Hunt, Picture, crew, read_again, search_all, simulator_of, work_off
from dse.proofs import FOLDER, headline_starts, proving
from dse.provenance import attributes
from dse.questions import Shard, Winner, default_winners, grid_of, questions_of, real_chips, shards_of, why_nothing, winners_of
from dse.results import Cells, of_stated_worth, save, sweep, to_dataset
from dse.search.designs import Questions
from dse.search.finalists import Finalist, Placed, place
from dse.search.optuna_study import sampler_of
from dse.search.shards import ENDED
from dse.search.simulator import place as place_simulated
from dse.settle import candidates, known_designs, settled
from dse.study import Study, check_study, read_study
from dse.tradeoff import with_tradeoff
from dse.validate.points import measured_points

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["run_study", "sweep", "work_off"]

Progress = Callable[[float, float, str], None]


def _cells(
    winners: Sequence[Winner], study: Study, questions: Questions, overlay: str | None, pool: ProcessPoolExecutor | None, progress: Progress
) -> list[Cells]:
    """Exact evaluations of all winners in all cases; the cases one after the other, or side by side."""
    found: list[Cells] = []
    simulator = simulator_of(study)
    finalists = [Finalist(w.chip, w.formats) for w in winners]
    many = range(len(questions.cases))
    parts: Iterable[Iterable[Placed]]
    if simulator is not None:
        grid = grid_of(study, ())
        parts = (place_simulated(simulator, case, finalists, grid, questions.limits_s) for case in questions.cases)
    elif pool is not None and len(many) > 1:
        parts = (f.result() for f in [pool.submit(_placed_again, str(study.path), overlay, finalists, k) for k in many])
    else:
        parts = (_placed(study, questions, finalists, k) for k in many)
    for k, placed in enumerate(parts):
        case = questions.cases[k]
        model, workload = study.models.index(case.model_id), study.workloads.index(case.workload_id)
        for p in placed:
            index = (p.who, np.full_like(p.who, model), np.full_like(p.who, workload), p.scenario, p.limit)
            found.append(Cells(index, p.metrics, p.format_weights, p.format_kv, p.valid))
        progress(k + 1, len(questions.cases), "winners")
    return found


def _placed(study: Study, questions: Questions, finalists: Sequence[Finalist], k: int) -> list[Placed]:
    """Finalists in their best layouts for one case."""
    every = study.search.finish > 0 and study.search.finish_others > 0  # chips were bred on every batch of every case
    head = {questions.headline_case, *(i for m in questions.mixes if questions.headline_case in dict(m) for i, _ in m)}
    return list(place(questions.cases[k], finalists, grid_of(study, ()), questions.limits_s, octave=k in head or every))


def _placed_again(study_path: str, overlay: str | None, finalists: Sequence[Finalist], k: int) -> list[Placed]:
    """The same in a process of its own."""
    study, catalog = read_again(study_path, overlay)
    return _placed(study, questions_of(study, catalog), finalists, k)


def _quick_again(
    ds: xr.Dataset, study_path: str, overlay: str | None, seed: int, budget: int
) -> tuple[dict[str, xr.Variable], set[str], dict[str, Any]]:
    """What ``quick`` adds to a Dataset, in a process of its own: variables, which of them are coordinates, attributes."""
    study, catalog = read_again(study_path, overlay)
    out = quick(ds, study, catalog, questions_of(study, catalog), seed, budget, lambda *_: None)
    more = {str(n): v for n, v in out.variables.items() if n not in ds.variables}
    return more, {n for n in more if n in out.coords}, {k: v for k, v in out.attrs.items() if ds.attrs.get(k) is not v}


def _with(ds: xr.Dataset, more: Mapping[str, xr.Variable], coords: set[str], attrs: Mapping[str, Any]) -> xr.Dataset:
    """A Dataset with what ``_quick_again`` found."""
    out = ds.assign_coords({n: more[n] for n in more if n in coords}).assign({n: more[n] for n in more if n not in coords})
    out.attrs.update(attrs)
    return out


def prepare_folder(out: Path, resume: bool, force: bool) -> None:
    """Check the output folder before any work: an existing result is continued or replaced only when asked for.

    Raises:
        InputError: there is a result or a journal, and neither ``resume`` nor ``force`` was given.
    """
    journal, result = out / "study.journal", out / "result.nc"
    if (journal.exists() or result.exists()) and not (resume or force):
        raise InputError(
            f"{out}: holds a result or an unfinished run; --resume continues it, --force starts again, --out names another folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: out — cannot be made ({error}); name another --out") from error
    if force and not resume:
        for path in (journal, result):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / "figures", ignore_errors=True)


def _attach_certificates(ds: xr.Dataset, issued: Sequence[Certificate], study: Study) -> None:
    """Put the bounds that were issued for this question and catalogue beside what the search found; of two, the tighter one."""
    h = study.headline
    case = ds.sel(model=h.model, workload=h.workload, scenario=h.scenario)["usd_per_million_output_token"]
    mine = (ds["status"] == "hypothetical") & (ds["below_4_bit"] == 0)
    found: dict[tuple[str, float], float] = {}
    for family in dict.fromkeys(ds["family"].values):
        least = case.where(mine & (ds["family"] == family)).min("design", skipna=True)
        found |= {(str(family), float(limit)): float(cost) for limit, cost in zip(ds["tpot_limit"].values, least.values, strict=True)}
    tightest = {(c.family, c.tpot_limit_s): c for c in sorted(issued, key=lambda c: c.bound or np.inf)}
    issued = list(tightest.values())
    table = rows(issued, {k: v for k, v in found.items() if np.isfinite(v)})
    if table:
        ds.attrs["shadow_prices"] = json.dumps(worth(issued))
        ds.attrs["certificates"] = json.dumps(table)
        for name, values in by_family(table, [float(x) for x in ds["tpot_limit"].values]).items():
            ds[name] = values


def run_study(
    study: str | Path | Study,
    budget: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    storage: str | None = None,
    workers: int = 1,
    add_chips: Sequence[str] = (),
    catalog: str | Path | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> xr.Dataset:
    """Run a study and return its Dataset; with ``out``, write there what ``dse run`` writes.

    Args:
        study: Path, name of a shipped study, or a ``Study``. budget: Chips to evaluate over the whole study (None: the study's).
        seed: None: the study's. out: Folder; None keeps everything in memory. resume, force: For a folder that holds a run already.
        storage: Optuna storage URL instead of the journal file in ``out``. workers: Processes. add_chips: Further chips of the catalogue.
        catalog: Overlay folder. max_seconds: Cut the search after this time (written into the result).
        progress: Called with done, total and a word. announce: Called with what is worth a line before the end.

    Raises:
        InputError: something in study, catalogue or arguments is wrong. InfeasibleError: no design meets the limits.
    """
    with crew(workers) as pool:
        return _run(pool, study, budget, seed, out, resume, force, storage, add_chips, catalog, max_seconds, progress, announce)


def _run(
    pool: ProcessPoolExecutor | None,
    study: str | Path | Study,
    budget: int | None,
    seed: int | None,
    out: str | Path | None,
    resume: bool,
    force: bool,
    storage: str | None,
    add_chips: Sequence[str],
    catalog: str | Path | None,
    max_seconds: float | None,
    progress: Progress | None,
    announce: Callable[[str], None],
) -> xr.Dataset:
    """``run_study`` with the processes that help."""
    clock = _Clock()
    report = progress or (lambda *_: None)
    book = load_catalog(catalog)
    searched = book.sha256  # added chips are no part of the search: they may join or leave when it is resumed
    plan = study if isinstance(study, Study) else read_study(study, book)
    added = [book.resolve("chips", name) for name in add_chips]
    problems = check_study(plan, book)
    if problems:
        raise InputError(problems)
    budget, seed = plan.budget if budget is None else budget, plan.seed if seed is None else seed
    sampler_of(plan.search.sampler, seed)  # refused before any work
    if plan.search.warm_start:
        find_result(plan.search.warm_start)
    simulator = simulator_of(plan)
    folder = Path(out) if out is not None else None
    if folder is not None:
        prepare_folder(folder, resume, force)
    where: str | Path = storage or (folder / "study.journal" if folder is not None else "")
    shards, questions = shards_of(plan, book), questions_of(plan, book)
    limit = max_seconds if max_seconds is not None else plan.max_seconds
    deadline = None if limit is None else clock.start + limit
    known = known_designs(plan, book) if plan.kind == "claims" else []
    with tempfile.TemporaryDirectory() as scratch:
        ledger = where or Path(scratch) / "study.journal"
        shards = [] if known else shards
        hunt = Hunt(
            str(plan.path),
            _text(catalog),
            searched,
            max(budget // max(len(shards), 1), 1),
            seed,
            str(ledger),
            isinstance(ledger, Path),
            _text(folder),
        )
        found, counts = search_all(plan, shards, book, hunt, pool, report, _picture(plan, shards, book, folder, announce, clock), deadline)
    ended = [(s, found[s.label]) for s in shards if s.label in found]
    winners = [w for s, f in ended for w in winners_of(s, f.archive, plan, book, f.finished, f.served)]
    if plan.kind == "claims":
        came = f"the result of {plan.designs_from}" if known else f"a search of {counts['chips_screened']:,} chips"
        facts = {"seed": seed, "budget": budget, "counts": counts, "designs_from": came}
        ds = settled(plan, book, known or candidates(winners), added, facts, report)
        return _written(ds, folder, report, clock)
    winners += bred(plan, book, winners, seed, report)
    winners += real_chips(plan, book, added)
    cells = _cells(winners, plan, questions, _text(catalog), pool, report) if winners else []
    if not any(c.valid.any() for c in cells):
        raise InfeasibleError(why_nothing(questions, default_winners(plan, book, shards), plan))
    coordinates = {"model": plan.models, "workload": plan.workloads, "scenario": plan.scenarios, "tpot_limit": questions.limits_s}
    run = {
        "measured": measured_points(plan.models, plan.workloads, book),
        "seed": seed, "budget": budget, "counts": counts, "stopped_by": _stopped(counts, len(shards)), "added_chips": added,
        "ttft_limit_s": {c.workload_id: c.ttft_limit_s for c in questions.cases if np.isfinite(c.ttft_limit_s)},
    }  # fmt: skip
    ds = to_dataset([w.design for w in winners], coordinates, cells, attributes(plan, book, dict.fromkeys(s.family for s in shards), run))
    if plan.layouts.quality:
        ds = of_stated_worth(ds, plan.layouts.quality)
    if simulator is not None:  # what follows is said of the model
        ds.attrs["simulator"] = f"{simulator.name} (sha256 {simulator.sha256[:12]})"
        return _written(ds, folder, report, clock)
    if questions.variants:
        report(0, 1, "three objectives")
        ds = with_tradeoff(ds, plan, questions, winners)
    report(0, 1, "elasticities")
    cases = {(c.model_id, c.workload_id): (c.model, c.workload) for c in questions.cases}
    prices = dict(zip(plan.scenarios, questions.cases[0].prices, strict=True))
    places = [] if folder is None else [folder / FOLDER, folder.parent / FOLDER]
    with proving(plan, book, _text(catalog), headline_starts(ds, plan), places[0] if places else None, places) as proofs:
        sure = None if pool is None else pool.submit(_quick_again, ds, str(plan.path), _text(catalog), seed, budget)
        ds = winner_elasticities(ds, {w.design.id: w.chip for w in winners}, cases, prices, plan.headline.tpot)
        ds = answered(ds, plan, book, winners, report)
        ds = quick(ds, plan, book, questions, seed, budget, report) if sure is None else _with(ds, *sure.result())
        report(0, 1, "proofs")
        _attach_certificates(ds, [c for place in places for c in beside(place, plan, book)] + proofs.all(), plan)
    return _written(ds, folder, report, clock)


def _stopped(counts: Mapping[str, int], shards: int) -> str:
    """What ended the search."""
    if counts["cut_by_time"]:
        return "time"
    ended = counts[ENDED]
    return (
        "budget" if not ended else "proved gap" if ended == shards else f"proved gap in {ended} of {shards} families, budget in the others"
    )


@dataclass
class _Clock:
    """When a run began, and how long it took to its first picture: seconds of the wall and of this process's computing."""

    start: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)
    looked: dict[str, float] = field(default_factory=dict)

    def look(self) -> str:
        """Note the first picture; what a person is told."""
        self.looked = {
            "first_look_s": round(time.monotonic() - self.start, 3),
            "first_look_cpu_s": round(time.process_time() - self.cpu, 3),
        }
        return f"after {self.looked['first_look_s']:.1f} s ({self.looked['first_look_cpu_s']:.1f} s of computing)"

    def times(self) -> dict[str, float]:
        """Attributes of the Dataset."""
        return {
            "wall_time_s": round(time.monotonic() - self.start, 3), "cpu_time_s": round(time.process_time() - self.cpu, 3), **self.looked,
        }  # fmt: skip


def _written(ds: xr.Dataset, folder: Path | None, report: Progress, clock: _Clock) -> xr.Dataset:
    """The Dataset, saved with its report where there is a folder."""
    ds.attrs.update(clock.times())
    if folder is not None:
        from dse.report import write_report

        report(0, 1, "report")
        save(ds, folder / "result.nc")
        write_report(ds, folder)
    report(1, 1, "done")
    return ds


def _picture(
    study: Study, shards: Sequence[Shard], catalog: Catalog, folder: Path | None, announce: Callable[[str], None], clock: _Clock
) -> Picture:
    """What draws the first look into the folder of a run; nothing where there is none."""
    if folder is None or study.kind == "claims":
        return lambda _: None
    narrow = {s.label: f"{s.family}/{s.label}" for s in shards if s.below_4_bit}
    h = study.headline
    names = [catalog.records[k][i].name for k, i in (("models", h.model), ("workloads", h.workload), ("prices", h.scenario))]

    def draw(costs: Mapping[str, np.ndarray]) -> None:
        from dse.report.first import write_first_look

        found = {narrow.get(label, label): values.tolist() for label, values in costs.items()}
        path = write_first_look(folder, ", ".join(names), study.limits.tpot, found, list(narrow.values()))
        announce(f"first look {clock.look()}: {path}")

    return draw


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
