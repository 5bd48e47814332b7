"""Hypervolume against CPU seconds: the default search, Optuna's samplers alone, and an outside NSGA-II fed by the same batched model.

    taskset -c 1 python benchmarks/hypervolume.py --families sram transformer_asic --seconds 60 --seeds 3

Every method sees one case (the headline of the main study) and the same scorer: a chip with all its layouts. Time is CPU time of the
process, compilation apart. Rows are appended to ``benchmarks/results/hypervolume.csv``; runs that are in it are not repeated. ``--table``
prints the file. All rows at once, each run on a core of its own: ``benchmarks/hypervolume_all.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import optuna

from dse.catalog import load_catalog
from dse.certificates import read
from dse.pareto import hypervolume
from dse.questions import grid_of, questions_of, shards_of, shop_of
from dse.search.designs import Questions, block_scorer
from dse.search.finish import polished
from dse.search.optuna_study import distributions_of, open_ledger, open_storage
from dse.search.refine import Question, Refined, refine
from dse.search.shards import Plan, canonical, points_of, run_shard
from dse.study import read_study

OUT = Path(__file__).parent / "results" / "hypervolume.csv"
CERTIFICATES = Path(__file__).parent.parent / "reports" / "certificates"
MARKS = (1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
REFERENCE = (0.2, 10.0)  # s, USD per million output tokens
SAMPLERS = {
    "tpe": lambda s: optuna.samplers.TPESampler(seed=s, multivariate=True),
    "nsga2": lambda s: optuna.samplers.NSGAIISampler(seed=s),
    "qmc": lambda s: optuna.samplers.QMCSampler(seed=s, scramble=True, warn_independent_sampling=False),
    "random": lambda s: optuna.samplers.RandomSampler(seed=s),
    "cmaes": lambda s: optuna.samplers.CmaEsSampler(seed=s, warn_independent_sampling=False),
}
BLOCK = 32
FINISH = 0.8  # share of the time of the default search: kept for finishing what leads, as a study does with its headline
ROUNDS, FRESH = 100, 0.4  # of one finish: those of a study
FAR = 1e3  # stands for a cost that is not reached, where a sampler needs a number


class Clock(Exception):
    """The time is over."""


class Race:
    """One family and case: scores chips, and notes the hypervolume at the marks of CPU time."""

    def __init__(self, family: str, block: int = BLOCK) -> None:
        catalog = load_catalog()
        study = read_study("gpu_vs_sram_vs_asic", catalog)
        shard = next(s for s in shards_of(study, catalog) if s.family == family and not s.below_4_bit)
        whole = questions_of(study, catalog)
        case = whole.cases[whole.headline_case]
        case = replace(case, prices=(case.prices[whole.headline_scenario],))
        self.shop = shop_of(family, study.families[family], catalog)
        self.space, self.limits = self.shop.space, np.array(whole.limits_s)
        self.questions = Questions((case,), whole.limits_s, 0, 0)
        self.asked = Question(((case, 1.0),), whole.limits_s)
        self.grid = grid_of(study, shard.formats)
        self.catalog = catalog.sha256[:8]
        self.scorer = block_scorer(self.shop, self.questions, self.grid, block)
        self.block = block

    def start(self, seconds: float) -> None:
        defaults = {k: np.array([v]) for k, v in self.space.defaults().items()}
        self.scorer(defaults)  # compiles
        found = self.refined(self.space.encode(defaults), np.random.default_rng(0), rounds=1)  # likewise
        polished(self.shop, self.asked, self.grid, found)
        self.best, self.chips = np.full(len(self.limits), np.inf), 0
        self.leaders = np.zeros((len(self.limits), self.space.dimension))
        self.notes: list[tuple[float, float, int, np.ndarray]] = []  # seconds, hypervolume, chips, least cost under every limit
        self.left, self.stop, self.begin = [m for m in MARKS if m <= seconds], seconds, time.process_time()

    def note(self) -> float:
        """What is known at the marks that have passed; the time spent."""
        spent = time.process_time() - self.begin
        while self.left and spent >= self.left[0]:
            self.notes.append((self.left.pop(0), self.volume(), self.chips, self.best.copy()))
        return spent

    def score(self, values: dict[str, np.ndarray]):
        found = self.scorer(values)
        costs = found.costs[:, : len(self.limits)]
        better = np.flatnonzero(costs.min(axis=0) < self.best)
        self.leaders[better] = self.space.encode(values)[costs[:, better].argmin(axis=0)]
        self.best = np.minimum(self.best, costs.min(axis=0))
        self.chips += len(costs)
        if self.note() >= self.stop:
            raise Clock
        return found

    def refined(self, points: np.ndarray, rng: np.random.Generator, rounds: int = ROUNDS) -> Refined:
        return refine(self.shop, self.asked, self.grid, points, rounds, rng, self.block, FRESH)

    def finish(self, seconds: float, rng: np.random.Generator) -> None:
        """Breed around the leaders on every batch, and polish the best, again and again until the time is over; what comes too late does
        not count."""
        done = np.empty((0, self.space.dimension))  # polished, and what came of it
        self.stop = seconds
        while self.left:
            bred = self.refined(np.unique(self.leaders[np.isfinite(self.best)], axis=0), rng)
            self.take(bred, bred.chips)
            better = polished(self.shop, self.asked, self.grid, bred, done)
            done = np.concatenate([done, better.points])
            self.take(better, better.chips - bred.chips)

    def take(self, found: Refined, chips: int) -> None:
        """Count what was found as known from now on, if the time is not over."""
        if self.note() >= self.stop:
            return
        self.chips += chips
        costs = found.costs.min(axis=0)
        better = np.flatnonzero(costs < self.best)
        self.leaders[better] = found.points[found.costs[:, better].argmin(axis=0)]
        self.best = np.minimum(self.best, costs)

    def volume(self) -> float:
        return _volume(self.limits, self.best)


def objectives(scores, i: int) -> tuple[float, float]:
    """Two objectives of a chip for a sampler: mean logarithm of its costs over the limits, and its fastest token."""
    costs = np.minimum(scores.costs[i, :-1], FAR)
    return float(np.log(costs).mean()), float(min(scores.values[i, 1], 1.0))


def default(race: Race, seed: int) -> None:
    """What a study does: the search of many questions, then the finish of the headline."""
    seconds, race.stop = race.stop, race.stop * (1 - FINISH)
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(open_storage(Path(folder) / "journal"), "race", race.space, {})
        plan = Plan("race", race.space, race.questions.cells, 10**7, "nsga2", True, 4, BLOCK - 4, seed)
        with contextlib.suppress(Clock):
            run_shard(plan, ledger, race.score, lambda *_: None)
    race.finish(seconds, np.random.default_rng(seed))


def by_optuna(race: Race, seed: int, name: str) -> None:
    sampler, one = SAMPLERS[name](seed), name == "cmaes"  # one chip an ask, all layouts inside; cmaes takes a single objective
    study = optuna.create_study(directions=["minimize"] * (1 if one else 2), sampler=sampler)
    kinds, fixed = distributions_of(race.space), race.space.named(race.space.defaults())
    while True:
        trials = [study.ask(kinds) for _ in range(BLOCK)]
        scores = race.score(points_of(race.space, [{**fixed, **t.params} for t in trials])[0])
        for i, trial in enumerate(trials):
            values = objectives(scores, i)
            study.tell(trial, values[:1] if one else values)


def by_pymoo(race: Race, seed: int, _: str) -> None:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Chips(Problem):
        def __init__(self) -> None:
            super().__init__(n_var=race.space.dimension, n_obj=2, xl=0.0, xu=1.0)

        def _evaluate(self, x, out, *_, **__):
            parts = []
            for a in range(0, len(x), BLOCK):
                scores = race.score(canonical(race.space, x[a : a + BLOCK])[1])
                parts += [objectives(scores, i) for i in range(len(scores.costs))]
            out["F"] = np.array(parts)

    minimize(Chips(), NSGA2(pop_size=128), ("n_gen", 10**7), seed=seed)


def methods() -> dict:
    found = {"default": lambda race, seed: default(race, seed)}
    for name in SAMPLERS:
        if name != "cmaes" or find_spec("cmaes"):
            found[name] = lambda race, seed, name=name: by_optuna(race, seed, name)
    if find_spec("pymoo"):
        found["pymoo-nsga2"] = lambda race, seed: by_pymoo(race, seed, "")
    return found


def _volume(limits_s: np.ndarray, best: np.ndarray) -> float:
    ok = np.isfinite(best)
    points = np.stack([np.log(limits_s[ok]), np.log(best[ok])], axis=1)
    return hypervolume(points, np.log(REFERENCE)) if ok.any() else 0.0


def certified(family: str, limits_s: np.ndarray, of: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Costs under every limit of the optima of a family's committed certificates of a catalogue, and the least that their bounds allow."""
    found = {
        c.tpot_limit_s: c
        for c in (read(path) for path in sorted(CERTIFICATES.glob(f"*-{family}-*.json")))
        if c.catalog_sha256.startswith(of)
    }
    if not found:
        return None
    costs = [[np.inf if c is None or x is None else x for x in (c and c.optimum, c and c.bound)] for c in map(found.get, limits_s.tolist())]
    return tuple(np.array(costs).T)  # type: ignore[return-value]


def table() -> None:
    """Median hypervolume at each mark in per cent of that of the best front known, and at 10 s of what the bounds still allow.

    The best front known has the least cost under every limit of all rows and of the certificates of the same catalogue: rows of an earlier
    one stand apart, with the front that was known to them. Samplers alone are scored on the coarse
    batches with which chips are searched; the finish of the default search and certificates know every batch that the refinement of
    winners reaches.
    """
    with OUT.open(encoding="utf-8") as file:
        rows = [{**r, "hv": float(r["hypervolume"]), "at": float(r["seconds"])} for r in csv.DictReader(file)]
    study = read_study("gpu_vs_sram_vs_asic", load_catalog())
    limits = np.array(study.limits.tpot)
    marks = sorted({r["at"] for r in rows})
    heads = ["family", "method", "budget", *(f"{m:g} s" for m in marks), "10 s, of what bounds allow", "chips", "seeds", "catalogue"]
    print(f"| {' | '.join(heads)} |\n|---|---|--:|" + "--:|" * (len(heads) - 3))
    for family, catalog in dict.fromkeys((r["family"], r["catalog"]) for r in rows):
        ours = [r for r in rows if (r["family"], r["catalog"]) == (family, catalog)]
        proved = certified(family, limits, catalog)
        fronts = [np.array([float(x) for x in r["costs"].split()]) for r in ours]
        fronts += [] if proved is None else [proved[0]]
        best = _volume(limits, np.min(fronts, axis=0))
        allowed = None if proved is None else _volume(limits, proved[1])
        for method, budget in dict.fromkeys((r["method"], r["budget"]) for r in ours):
            mine = [r for r in ours if (r["method"], r["budget"]) == (method, budget)]
            medians = [float(np.median(c)) if c else None for c in ([r["hv"] for r in mine if r["at"] == m] for m in marks)]
            ten = dict(zip(marks, medians, strict=True)).get(10.0)
            shown = ["" if m is None else f"{100 * m / best:.2f} %" for m in medians]
            shown.append("" if ten is None or allowed is None else f"{100 * ten / allowed:.2f} %")
            counts = [str(max(int(r["chips"]) for r in mine)), str(len({r["seed"] for r in mine})), catalog]
            print(f"| {' | '.join([family, method, f'{float(budget):g} s', *shown, *counts])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=["sram", "transformer_asic"])
    parser.add_argument("--methods", nargs="*", help="all whose packages are installed by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of CPU time; 0 compiles only")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="one seed instead")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print what the file says")
    asked = parser.parse_args()
    if asked.table:
        return table()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = methods()
    if missing := [m for m in asked.methods or [] if m not in known]:
        raise SystemExit(f"{', '.join(missing)}: unknown, or its package is not installed (known: {', '.join(known)})")
    done = set()
    if asked.out.exists():
        with asked.out.open(encoding="utf-8") as file:
            done = {(r["family"], r["method"], r["seed"], r["budget"], r["catalog"]) for r in csv.DictReader(file)}
    for family in asked.families:
        race = Race(family)
        for seed in range(asked.seeds) if asked.seed is None else [asked.seed]:
            for method in asked.methods or known:
                if (family, method, str(seed), f"{asked.seconds:g}", race.catalog) in done:
                    continue
                race.start(asked.seconds)
                if not asked.seconds:
                    print(family, "compiled", flush=True)
                    continue
                with contextlib.suppress(Clock):
                    known[method](race, seed)
                new = not asked.out.exists()
                with asked.out.open("a", newline="", encoding="utf-8") as file:
                    rows = csv.writer(file)
                    if new:
                        rows.writerow(["family", "method", "seed", "budget", "catalog", "seconds", "hypervolume", "chips", "costs"])
                    rows.writerows([family, method, seed, f"{asked.seconds:g}", race.catalog, *note] for note in map(_cells, race.notes))
                print(family, method, seed, race.notes[-1][:3] if race.notes else "", flush=True)


def _cells(note: tuple[float, float, int, np.ndarray]) -> tuple[float, str, int, str]:
    at, volume, chips, costs = note
    return at, f"{volume:.6f}", chips, " ".join(f"{x:.6g}" for x in costs)


if __name__ == "__main__":
    main()
