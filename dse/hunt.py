"""How are the shards of a study searched, in this process or in several, and what is there to see first?

Every shard first takes a quick look at the headline question; a picture of that is drawn long before the search ends. Order and number of
processes change nothing: a shard depends on its ledger alone.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from dse.catalog import Catalog, load_catalog
from dse.earlier import digest, earlier_points
from dse.proofs import FOLDER, issued, keep, prove_headline
from dse.questions import Shard, grid_of, questions_of, shards_of, shop_of
from dse.search import explore
from dse.search.designs import Shop, block_scorer
from dse.search.finish import polished
from dse.search.optuna_study import Entry, Ledger, claimed, open_ledger, open_storage
from dse.search.refine import headline_question, other_questions, refine
from dse.search.shards import ENDED, Plan, finished, run_shard
from dse.search.simulator import Simulator, load_simulator
from dse.search.simulator import block_scorer as simulated_scorer
from dse.study import Study, read_study

Progress = Callable[[float, float, str], None]
Picture = Callable[[Mapping[str, np.ndarray]], None]  # least cost of the headline under every limit, by label of the shard
COUNTED = ("chips_screened", "chips_refined", "evaluations", ENDED)
LOOK = 25  # rounds of the first look: enough to tell families apart
FRESH = 0.4  # share of a finish that starts from nothing
CHECKS = 4  # times that a family's search is asked whether the proved gap is small enough


@dataclass(frozen=True)
class Hunt:
    """What all shards of a run share; what a process needs to begin anew."""

    study_path: str
    overlay: str | None
    digest: str  # of the catalogue, without chips that were added to it
    chips: int  # of a shard
    seed: int
    storage: str
    is_file: bool  # the storage is a journal file, not a URL
    folder: str | None = None  # of the result, where certificates are kept

    @property
    def where(self) -> str | Path:
        """The storage, as Optuna's door takes it."""
        return Path(self.storage) if self.is_file else self.storage


@dataclass(frozen=True)
class Found:
    """What a shard ended with."""

    archive: explore.Archive
    finished: tuple[Mapping[str, Any], ...]  # decisions of the chips that the finish found
    served: np.ndarray  # (cells,), where one of them is the best there is: cells that the finish searched on every batch
    counts: Mapping[str, int]


def _plan(shard: Shard, shop: Shop, study: Study, cells: int, chips: int, seed: int) -> Plan:
    s = study.search
    finish = s.finish if s.explore else 0
    checks = CHECKS if s.gap is not None and not shard.below_4_bit else 1
    look = LOOK if finish else 0
    return Plan(shard.label, shop.space, cells, chips, s.sampler, s.explore, s.asked, s.bred, seed, look, finish, checks)


def search_shard(
    shard: Shard, hunt: Hunt, study: Study, catalog: Catalog, tick: Callable[[int, int], None], until: int | None = None
) -> Found:
    """Search one shard from wherever its ledger stands, to its end or for so many steps."""
    shop, questions = shop_of(shard.family, study.families[shard.family], catalog), questions_of(study, catalog)
    plan = _plan(shard, shop, study, questions.cells, hunt.chips, hunt.seed)
    start = earlier_points(study.search.warm_start, shop.space) if study.search.warm_start else None
    ledger = ledger_of(shard, shop, hunt, study)
    grid, asked = grid_of(study, shard.formats), headline_question(questions)
    headline = int(np.argmin(np.abs(np.asarray(questions.limits_s) - study.headline.tpot)))
    best = [np.inf]  # of the headline's limit, on every batch

    def polish(points: np.ndarray, costs: np.ndarray | None, rounds: int, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
        found = [refine(shop, asked, grid, points, rounds, rng, plan.block, FRESH if len(points) > 1 else 0.0)]
        if costs is not None and study.search.finish_others:
            # each begins with what leads there and with all that was found before; so does the headline, once more at the end
            for question, cells in [*other_questions(questions), (asked, np.r_[questions.headline_cells])]:
                lead = np.concatenate([points[explore.leaders(costs[:, cells], keep=1)], *(f.points for f in found)])
                if len(lead):
                    found.append(refine(shop, question, grid, lead, study.search.finish_others, rng, plan.block))
        best[0] = min((float(f.costs[:, headline].min()) for f in (found[0], found[-1]) if len(f.costs)), default=np.inf)
        if costs is not None and study.search.polish:
            found[-1] = polished(shop, asked, grid, found[-1])
        points = np.concatenate([f.points for f in found])
        return points, sum(f.chips for f in found), sum(f.evaluations for f in found)

    def enough(_: list[Entry]) -> bool:
        places = [] if hunt.folder is None else [Path(hunt.folder) / FOLDER, Path(hunt.folder).parent / FOLDER]
        c = issued(study, catalog, shard.family, places)
        if c is None:
            c = prove_headline(study, catalog, shard.family, study.search.certify, None)
            if c is not None and places:
                keep(c, places[0])
        return c is not None and c.bound is not None and 1.0 - c.bound / best[0] <= (study.search.gap or 0.0)

    simulator = simulator_of(study)
    scorer = (
        simulated_scorer(simulator, shop, questions, grid, plan.block) if simulator else block_scorer(shop, questions, grid, plan.block)
    )
    archive = run_shard(plan, ledger, scorer, tick, polish, start, until, enough)
    counts = {k: int(ledger.study.user_attrs.get(k, 0)) for k in COUNTED}
    last = finished(ledger)
    searched = np.concatenate([np.r_[questions.headline_cells], *(cells for _, cells in other_questions(questions))])
    served = np.zeros(questions.cells, bool)
    if last and study.search.finish_others:
        served[searched] = np.isfinite(np.array([e.front for e in last])[:, searched]).any(axis=0)
    return Found(archive, tuple(e.decisions for e in last), served, counts)


def simulator_of(study: Study) -> Simulator | None:
    """The simulator that a study names, from the folder of its file; the same one for the whole process."""
    if not study.search.simulator:
        return None
    simulator = load_simulator(study.search.simulator, study.path.parent)
    return _SIMULATORS.setdefault(simulator.sha256 + simulator.name, simulator)


_SIMULATORS: dict[str, Simulator] = {}  # with the answers that they gave in this process


def ledger_of(shard: Shard, shop: Shop, hunt: Hunt, study: Study) -> Ledger:
    """The Optuna study of a shard; one that was made for something else is refused."""
    identity = {"study_sha256": study.sha256, "catalog_sha256": hunt.digest, "seed": hunt.seed, "chips": hunt.chips}
    if study.search.warm_start:
        identity["warm_start_sha256"] = digest(earlier_points(study.search.warm_start, shop.space))
    if simulator := simulator_of(study):
        identity["simulator_sha256"] = simulator.sha256
    return open_ledger(open_storage(hunt.where), f"{study.name}/{shard.label}", shop.space, identity, len(study.objectives))


def work_off(study: Study, storage: str, budget: int | None, seed: int | None, overlay: str | None) -> Iterator[tuple[str, int]]:
    """Search the shards that no other worker has taken; yields each one's label and chips when it is done."""
    catalog = load_catalog(overlay)
    budget, seed = study.budget if budget is None else budget, study.seed if seed is None else seed
    shards = shards_of(study, catalog)
    hunt = Hunt(str(study.path), overlay, catalog.sha256, max(budget // max(len(shards), 1), 1), seed, storage, False)
    for shard in shards:
        shop = shop_of(shard.family, study.families[shard.family], catalog)
        if claimed(ledger_of(shard, shop, hunt, study)):
            yield shard.label, search_shard(shard, hunt, study, catalog, lambda *_: None).counts["chips_screened"]


@contextmanager
def crew(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that work on a run beside this one; None for a single one."""
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:  # ends quietly
        yield pool


@functools.lru_cache(maxsize=1)
def read_again(study_path: str, overlay: str | None) -> tuple[Study, Catalog]:
    """Study and catalogue, once in a process."""
    return read_study(study_path), load_catalog(overlay)


def _worker(shard: Shard, hunt: Hunt, until: int | None) -> tuple[str, Found]:
    """A shard in a process of its own; everything but the ledger is made anew there."""
    study, catalog = read_again(hunt.study_path, hunt.overlay)
    return shard.label, search_shard(shard, hunt, study, catalog, lambda *_: None, until)


def search_all(
    study: Study,
    shards: Sequence[Shard],
    catalog: Catalog,
    hunt: Hunt,
    pool: ProcessPoolExecutor | None,
    progress: Progress,
    picture: Picture,
    deadline: float | None,
) -> tuple[dict[str, Found], dict[str, int]]:
    """What all shards found, and what was counted.

    Args:
        catalog: As read. pool: Processes that search (None: this one). picture: Told what the first look saw.
        deadline: On the monotonic clock; the search is cut there.
    """
    found: dict[str, Found] = {}
    looks = study.search.explore and study.search.finish > 0
    head = questions_of(study, catalog).headline_cells
    late = False

    def seen() -> None:
        costs = {label: f.archive.costs[:, head].min(axis=0) for label, f in found.items() if len(f.archive)}
        if looks and any(np.isfinite(c).any() for c in costs.values()):
            picture(costs)

    if pool is not None and len(shards) > 1:
        if not hunt.is_file:
            open_storage(hunt.where)  # a database gets its tables before two processes ask for them
        for until in (1, None) if looks else (None,):
            # the longest first, as far as the first look tells, so that no process waits long for the last one
            order = sorted(shards, key=lambda s: -found[s.label].counts["evaluations"] if s.label in found else 0)
            for n, done in enumerate(as_completed([pool.submit(_worker, s, hunt, until) for s in order]), 1):
                label, result = done.result()
                found[label] = result
                progress(n * hunt.chips if until is None else 0, len(shards) * hunt.chips, label)
            if until is not None:
                seen()
    else:
        for until in (1, None) if looks else (None,):
            late = _in_turn(study, shards, catalog, hunt, until, found, progress, deadline) or late
            if until is not None:
                seen()
    return found, {k: sum(f.counts.get(k, 0) for f in found.values()) for k in COUNTED} | {"cut_by_time": int(late)}


def _in_turn(
    study: Study,
    shards: Sequence[Shard],
    catalog: Catalog,
    hunt: Hunt,
    until: int | None,
    found: dict[str, Found],
    progress: Progress,
    deadline: float | None,
) -> bool:
    """One shard after the other in this process; whether the time was over before the end."""
    screened = 0
    for shard in shards:

        def tick(chips: int, evaluations: int, label: str = shard.label) -> None:
            nonlocal screened
            screened += chips
            progress(screened, len(shards) * hunt.chips, label if until is None else f"{label}, first look")
            if deadline is not None and until is None and time.monotonic() > deadline:
                raise TimeoutError

        try:
            found[shard.label] = search_shard(shard, hunt, study, catalog, tick, until)
        except TimeoutError:
            return True
    return False
