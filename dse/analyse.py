"""In what order is a result analysed? Its study and catalogue are read again, and every analysis writes what it finds into the Dataset.

``quick`` is the part that every run does; ``analyse`` does the whole, part by part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from dse.analysis import breakeven, elasticity, flips, limits, middles, regret, uncertainty
from dse.analysis.anew import Anew
from dse.analysis.compare import EXISTING, Competitor, Question, competitors_of, costs_of, decisions_of
from dse.analysis.compare import SAMPLES as AT_ONCE
from dse.analysis.inputs import Sampler, factors_of, records_of, scaled, with_values
from dse.analysis.optima import Asked, Start, reoptimised
from dse.analysis.redesign import compared
from dse.catalog import Catalog, load_catalog
from dse.errors import InputError
from dse.questions import grid_of, questions_of, row_of, shop_of
from dse.search.designs import Questions, build_block
from dse.search.shards import points_of
from dse.study import Study, read_study
from dse.types import Chip

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[float, float, str], None]
SAMPLES, OTHERS, EXPLAINED = 24576, 2048, 1024  # of the headline case, of the other cases, of Saltelli's design
QUICK = (4096, 1024, 256)  # the same inside of a run
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
    limit = headline_limit(study, questions)
    known = middles.middles(catalog, sampled.factors, sampled.competitors, sampled.question, questions.headline_scenario, limit)
    out = middles.into(out, known)
    told = uncertainty.explain(sampled, catalog, questions.headline_scenario, limit, sizes[2], seed)
    return uncertainty.explained_into(out, told, sampled.factors) if told else out


def _counted(s: uncertainty.Sampled) -> Mapping[str, int]:
    shapes = [f.distribution for f in s.factors]
    return {"inputs": len(shapes), "lognormal": shapes.count("lognormal"), "triangular": shapes.count("triangular")}


def quick(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions, seed: int, budget: int, progress: Progress) -> xr.Dataset:
    """What a run of a study of some size adds to its Dataset."""
    ds = with_regret(ds, study) if study.mix else ds
    if budget < LEAST_BUDGET or study.headline.analysis:  # an analysis of its own leads that report
        return ds
    return with_uncertainty(ds, study, catalog, questions, seed, QUICK, progress)


def chips_of(ds: xr.Dataset, study: Study, catalog: Catalog) -> dict[str, Chip]:
    """The hypothetical chips of a result, built again, by design id."""
    found: dict[str, Chip] = {}
    for family, overrides in study.families.items():
        at = np.flatnonzero((ds["status"].values == "hypothetical") & (ds["family"].values == family))
        if not len(at):
            continue
        shop = shop_of(family, overrides, catalog)
        decided = [decisions_of(ds, int(d), shop.space) for d in at]
        built = build_block(shop, points_of(shop.space, decided)[0]).chip
        for i, d in enumerate(at):
            found[str(ds["design"].values[d])] = row_of(built, i)
    return found


def with_elasticities(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions) -> xr.Dataset:
    """The Dataset with elasticities of cost and time at every front point, and what limits are worth."""
    cases = {(c.model_id, c.workload_id): (c.model, c.workload) for c in questions.cases}
    prices = dict(zip(study.scenarios, questions.cases[0].prices, strict=True))
    return elasticity.winner_elasticities(ds, chips_of(ds, study, catalog), cases, prices, study.headline.tpot, full=True)


def with_limits(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions) -> xr.Dataset:
    """The Dataset with the map of what binds, for the headline case and owner."""
    head = questions.cases[questions.headline_case]
    families = [f for f in study.families if ((ds["family"] == f) & (ds["status"] == "hypothetical")).any()]
    here = ds.sel(scenario=[study.headline.scenario])
    prices = {study.headline.scenario: head.prices[questions.headline_scenario]}
    case = {(head.model_id, head.workload_id): (head.model, head.workload)}
    points = elasticity.front_points(here, chips_of(ds, study, catalog), case, prices, families)
    return limits.into(ds, points, families)


def with_redesigns(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions, seed: int) -> xr.Dataset:
    """The Dataset with a few samples of the headline in which the leading families are searched anew: how much fixed designs miss."""
    setting = setting_of(ds, study, catalog, questions, AT_ONCE)
    if setting is None:
        return ds
    families = [n for n in setting.names if n != EXISTING][:REDESIGNED]
    asked = Asked(setting.question.case, study.headline.scenario, study.headline.tpot, many=True)
    sides = [setting.sides[f][0] for f in families]
    factors = factors_of(study, catalog, {k for c in sides for k in c.kernels})
    sampler = Sampler.of(catalog, factors)
    (u,) = uncertainty.points(RESAMPLES, len(factors), seed)
    padded = u[np.minimum(np.arange(AT_ONCE), RESAMPLES - 1)]
    drawn, values = sampler.catalog(catalog, padded), sampler.values(u)
    at = setting.scenario, setting.limit
    chosen = np.stack([costs_of(c, setting.question, drawn, AT_ONCE)[at][:RESAMPLES] for c in sides])
    again = np.full(chosen.shape, np.inf)
    for s in range(RESAMPLES):
        other = with_values(catalog, {p: float(x[s]) for p, x in zip(sampler.places, values, strict=True)})
        for f, c in enumerate(sides):
            best = reoptimised(start_of(c, study), other, asked, CHIPS_ANEW, seed, walk=0)
            again[f, s] = best.cost if best else np.inf
    return compared(ds, families, chosen, np.minimum(again, chosen))  # to keep a design and to cap its power stays open to its owner


def start_of(c: Competitor, study: Study) -> Start:
    """A family as a search from its designs on the front starts."""
    overrides = study.families[c.family]
    formats = tuple(dict.fromkeys(c.formats))
    return Start(c.family, lambda book: shop_of(c.family, overrides, book), tuple(c.decisions), grid_of(study, formats))


def reoptimised_flips(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions, seed: int) -> xr.Dataset:
    """The Dataset with the nearest flips of every comparison and the pair of families found again with designs that follow.

    Three flips are also searched from nothing on both sides. The other flips stay those of the front's designs, and are marked as such.
    """
    setting = setting_of(ds, study, catalog, questions)
    if setting is None or "flip_multiple" not in ds:
        return ds
    named = {x.name: x for x in breakeven.named_levers(catalog, records_of(study, catalog))}
    sides = [c for side in setting.sides.values() for c in side]
    named |= {x.name: x for x in breakeven.factor_levers(catalog, factors_of(study, catalog, {k for c in sides for k in c.kernels}))}
    facts = {f["against"]: f for f in json.loads(ds.attrs["breakeven"])}
    leader, *rivals = (n for n in setting.names if n != EXISTING)
    asked = Asked(setting.question.case, study.headline.scenario, study.headline.tpot, many=True)
    starts = {f: start_of(setting.sides[f][0], study) for f in (leader, *rivals)}
    market = Anew(catalog, asked, starts, seed)
    fixed = breakeven.Costs(setting, catalog)

    def held(rows: Sequence[Mapping[breakeven.Lever, float]]) -> dict[str, np.ndarray]:
        return dict(zip(setting.names, np.log(fixed.at(rows)), strict=True))

    turns: dict[str, list[flips.Turn]] = {}
    for against, f in facts.items():
        whom = tuple(rivals) if against == FAMILIES else (EXISTING,)
        known = sorted(flips.turns_of(ds, against, named, whom), key=lambda t: abs(t.first))[: FOLLOWED[against]]
        turns[against] = known + (flips.pair_turns(f, named, whom, EVERY) if against == FAMILIES else [])
    done = iter(flips.followed(market, leader, [t for some in turns.values() for t in some], held))
    found = {against: [next(done) for _ in some] for against, some in turns.items()}
    alone = {k: [r for r in rows if not r.turn.held] for k, rows in found.items()}
    lines = {k: [(r.turn.held[0][1], r.multiple) for r in rows if r.turn.held and r.settled] for k, rows in found.items()}
    near = sorted((r for r in alone.get(FAMILIES, []) if r.leader in rivals), key=lambda r: abs(np.log(r.multiple)))[:CHECKED]
    checked = []
    for r in near:
        flip = flips.Reoptimised(r.turn.lever.name, r.turn.fixed, r.multiple, r.slope, leader, r.leader)
        pair = flips.Pair(starts[leader], starts[r.leader], asked, catalog, seed)
        checked.append(flips.confirmed(pair, held, r.turn.lever, flip, questions.limits_s))
    return flips.into(ds, alone, checked, lines)


FAMILIES = "families"
FOLLOWED = {FAMILIES: 7, EXISTING: 3}  # nearest flips of a comparison that are found again with designs that follow
EVERY = 4  # so many points of the pair's line apart are, too
CHECKED = 3  # nearest flips that are searched on both sides
RESAMPLES, REDESIGNED = 50, 2  # samples in which designs are searched anew, and families
CHIPS_ANEW = 128  # tried in each such search, beside the designs of the front
RIVALS = 3  # families that the ranking is looked at with, beside the winner


def setting_of(
    ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions, rows: int = breakeven.ROWS
) -> breakeven.Setting | None:
    """The headline's comparison: the cheapest families at its limit, the winner first, and the chips that exist; None without two sides.

    ``rows``: of the compiled call that finds out who is cheap.
    """
    head = questions.cases[questions.headline_case]
    question = Question(head, tuple(questions.limits_s), tuple(study.scenarios))
    at = headline_limit(study, questions)
    s = questions.headline_scenario
    competitors = competitors_of(ds, head, uncertainty.spaces_of(study, catalog))
    plain = scaled(catalog, [], 1.0)
    cost = {c.name: float(costs_of(c, question, plain, rows)[s, at, 0]) for c in competitors}
    order = sorted((c for c in competitors if c.space is not None and np.isfinite(cost[c.name])), key=lambda c: cost[c.name])[: 1 + RIVALS]
    real = [c for c in competitors if c.space is None and np.isfinite(cost[c.name])]
    sides = {c.name: [c] for c in order} | ({EXISTING: real} if real else {})
    return breakeven.Setting(sides, question, s, at) if len(sides) > 1 else None


def headline_limit(study: Study, questions: Questions) -> int:
    """Position of the headline's limit."""
    return min(range(len(questions.limits_s)), key=lambda t: abs(questions.limits_s[t] - study.headline.tpot))


def with_breakevens(ds: xr.Dataset, study: Study, catalog: Catalog, questions: Questions) -> xr.Dataset:
    """The Dataset with the flip table of the headline: the winner against the other families, and against chips that exist."""
    setting = setting_of(ds, study, catalog, questions)
    if setting is None:
        return ds
    named = breakeven.named_levers(catalog, records_of(study, catalog))
    sides = [c for side in setting.sides.values() for c in side]
    foreign = {f"{kind} {f}: " for f in study.families for kind in ("families", "constants")} - {
        f"{kind} {c.family}: " for c in sides for kind in ("families", "constants")
    }
    factors = [f for f in factors_of(study, catalog, {k for c in sides for k in c.kernels}) if not f.name.startswith(tuple(foreign))]
    others = breakeven.factor_levers(catalog, factors)
    leader, *rivals = (n for n in setting.names if n != EXISTING)
    known = breakeven.Costs(setting, catalog)
    found = [breakeven.ranking(known, FAMILIES, leader, rivals, named, others)] if rivals else []
    if EXISTING in setting.sides:
        found.append(breakeven.ranking(known, EXISTING, leader, [EXISTING], named, others))
    return breakeven.into(ds, found)


def with_regret(ds: xr.Dataset, study: Study) -> xr.Dataset:
    """The Dataset with the regret of designs made for one case in the others, at the headline's owner and limit."""
    h = study.headline
    out = regret.into(ds, h.scenario, h.tpot, study.mix or None)
    if study.mix:
        out.attrs["mix"] = json.dumps({"weights": dict(study.mix), "families": regret.mix_of(ds, h.scenario, h.tpot, h.model, study.mix)})
    return out


WHAT = ("elasticity", "limits", "uncertainty", "redesign", "breakeven", "flips", "regret")
TOGETHER = (("uncertainty", "redesign"), ("elasticity", "limits", "breakeven", "flips", "regret"))  # each half about as long as the other


def analyse(
    ds: xr.Dataset,
    catalog: Catalog,
    what: Sequence[str],
    seed: int | None = None,
    progress: Progress = lambda *_: None,
    workers: int = 1,
    overlay: str | None = None,
) -> xr.Dataset:
    """The Dataset with the full analyses that are asked for (names of WHAT).

    Args:
        ds: Result of a study. catalog: Of now. what: Analyses. seed: None: that of the result. progress: Called with done, total, a word.
        workers: 2: in two processes, where both halves of ``TOGETHER`` are asked for. overlay: Folder of the catalogue's overlay, for them.

    Raises:
        InputError: the study or the catalogue changed since, or the result is one of claims.
    """
    if ds.attrs.get("kind") == "claims":
        raise InputError("result — found a result of claims, allowed one of a search")
    study_of(ds, catalog)
    if "flips" in what and "breakeven" not in what and "flip_multiple" not in ds:
        raise InputError("--what — found flips without breakeven, allowed both, or a result that was analysed for breakeven before")
    halves = [[w for w in half if w in what] for half in TOGETHER]
    if workers < 2 or not all(halves):
        return _in_order(ds, catalog, what, seed, progress)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_half, ds, overlay, half, seed) for half in halves]
        for n, done in enumerate(as_completed(jobs)):
            done.result()
            progress(n + 1, len(jobs), "analyses")
        for half, job in zip(halves, jobs, strict=True):
            ds = merged(ds, half, *job.result())
    return ds


def _half(ds: xr.Dataset, overlay: str | None, what: Sequence[str], seed: int | None) -> tuple[xr.Dataset, list[str]]:
    """What some analyses change: new or other variables and attributes, and names of variables that they removed."""
    done = _in_order(ds.copy(), load_catalog(overlay), what, seed, lambda *_: None)
    gone = [str(n) for n in ds.variables if n not in done.variables or ds[n].sizes != done[n].sizes]
    same = [n for n in done.variables if n in ds.variables and n not in gone and done[n].identical(ds[n])]
    changed = done.drop_vars([n for n in same if n not in done.dims])
    changed.attrs = {k: v for k, v in done.attrs.items() if ds.attrs.get(k) != v}
    return changed, gone


def merged(ds: xr.Dataset, what: Sequence[str], changed: xr.Dataset, gone: Sequence[str]) -> xr.Dataset:
    """A Dataset with what a half of the analyses (``what``) changed."""
    spent = spent_before(ds) | {k: v for k, v in spent_before(changed).items() if k in what}
    out = ds.drop_dims([d for d in gone if d in ds.dims]).drop_vars(
        [n for n in gone if n in ds.variables and n not in ds.dims], errors="ignore"
    )
    out = out.assign_coords({n: changed[n] for n in changed.coords}).assign({n: changed[n] for n in changed.data_vars})
    out.attrs |= changed.attrs | {"analysis_cpu_s": json.dumps(spent)}
    return out


def _in_order(ds: xr.Dataset, catalog: Catalog, what: Sequence[str], seed: int | None, progress: Progress) -> xr.Dataset:
    """All analyses one after another."""
    study = study_of(ds, catalog)
    questions = questions_of(study, catalog)
    chosen = int(ds.attrs.get("seed", study.seed)) if seed is None else seed
    parts: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
        "elasticity": lambda x: with_elasticities(x, study, catalog, questions),
        "limits": lambda x: with_limits(x, study, catalog, questions),
        "uncertainty": lambda x: with_uncertainty(x, study, catalog, questions, chosen, progress=progress),
        "redesign": lambda x: with_redesigns(x, study, catalog, questions, chosen),
        "breakeven": lambda x: with_breakevens(x, study, catalog, questions),
        "flips": lambda x: reoptimised_flips(x, study, catalog, questions, chosen),
        "regret": lambda x: with_regret(x, study),
    }
    spent = spent_before(ds)
    for i, name in enumerate(w for w in WHAT if w in what):
        progress(i, len(what), name)
        start = time.process_time()
        ds = parts[name](ds)
        spent[name] = round(time.process_time() - start, 2)
    ds.attrs["analysis_cpu_s"] = json.dumps(spent)
    return ds


def spent_before(ds: xr.Dataset) -> dict[str, float]:
    """Processor time of the analyses that a result holds already."""
    return dict(json.loads(str(ds.attrs.get("analysis_cpu_s", "{}"))))
