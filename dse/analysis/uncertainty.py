"""How sure is the ranking of the families, and which source's uncertainty matters most? Quasi-Monte Carlo over all sourced intervals.

Every sample draws all uncertain numbers of the catalogue at once (``inputs``), builds the front's designs anew from them and lets each
choose among the layouts of the front (``compare``). Shared numbers move all families together, so that differences keep what is common.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import qmc, rankdata, sobol_indices

from dse.analysis import compare
from dse.analysis.compare import EXISTING, Competitor, Question, competitors_of, costs_of, leading
from dse.analysis.inputs import Factor, Sampler, factors_of
from dse.catalog import Catalog
from dse.search.grid import Case
from dse.space import Space
from dse.study import Study

if TYPE_CHECKING:
    import xarray as xr

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # 90 % and 50 % bands, and the median
EDGE = 1e-9  # quantiles stay this far from 0 and 1
LEADING = 12  # factors, and groups, that get indices of their own; the rest is one group
REST = "all others"
EVEN = 64  # factors that take Sobol points
PILOT = 1024  # samples that rank the factors, and choose the options that are asked


@dataclass(frozen=True)
class Sampled:
    """Costs of a case in every sample: array (competitor, scenario, limit, samples), inf where a competitor meets no limit."""

    question: Question
    names: tuple[str, ...]  # families, and ``existing``: the cheapest chip that exists
    costs: np.ndarray
    factors: tuple[Factor, ...]
    pilot: tuple[np.ndarray, np.ndarray]  # quantiles (n, factors) and costs of the first samples, to rank factors with
    competitors: tuple[Competitor, ...]  # with the options that are best somewhere in the first samples


def _grouped(costs: np.ndarray, competitors: Sequence[Competitor]) -> tuple[tuple[str, ...], np.ndarray]:
    """Families as they are, all chips that exist as one: the cheapest of them in each sample."""
    families = [i for i, c in enumerate(competitors) if c.space is not None]
    real = [i for i, c in enumerate(competitors) if c.space is None]
    parts = [costs[i] for i in families] + ([costs[real].min(axis=0)] if real else [])
    return (*(competitors[i].name for i in families), *((EXISTING,) if real else ())), np.stack(parts)


def points(n: int, dimensions: int, seed: int, order: np.ndarray | None = None, copies: int = 1) -> list[np.ndarray]:
    """Quantiles (n, dimensions), ``copies`` of them: scrambled Sobol points for the EVEN first factors of ``order``, random for the rest.

    Sobol points of thousands of dimensions are correlated in pairs as long as they are few; nobody needs them even in all dimensions.
    """
    rng = np.random.default_rng(seed)
    found = rng.random((copies, n, dimensions))
    even = (np.arange(dimensions) if order is None else order)[:EVEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a number of points that is no power of 2
        smooth = qmc.Sobol(copies * len(even), rng=rng).random(n)
    for i in range(copies):
        found[i][:, even] = smooth[:, i * len(even) : (i + 1) * len(even)]
    return list(np.clip(found, EDGE, 1 - EDGE))


def sample(
    study: Study,
    catalog: Catalog,
    competitors: Sequence[Competitor],
    question: Question,
    samples: int,
    seed: int,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> Sampled:
    """Costs of all competitors under ``samples`` draws of everything uncertain.

    Some first samples rank the factors by what they do to the costs and their ratios; those that do most take the first dimensions of
    the points that count, where Sobol points are evenest. Options that are the best nowhere in the first samples are not asked again.
    """
    factors = tuple(factors_of(study, catalog, {k for c in competitors for k in c.kernels}))
    sampler = Sampler.of(catalog, factors)

    def costs(catalogs: Iterable[Catalog], asked: Sequence[Competitor], samples: int) -> tuple[tuple[str, ...], np.ndarray]:
        found = []
        for drawn in catalogs:
            found.append(np.stack([costs_of(c, question, drawn, compare.SAMPLES) for c in asked]))
            tick(min(len(found) * compare.SAMPLES, samples), samples)
        return _grouped(np.concatenate(found, axis=-1)[..., :samples], asked)

    pilot = np.random.default_rng(seed).random((PILOT, len(factors)))
    drawn = [sampler.catalog(catalog, pilot[at]) for at in compare.in_blocks(PILOT)]
    asked = tuple(leading(c, question, drawn, compare.SAMPLES) for c in competitors)
    names, first = costs(drawn, asked, PILOT)
    if samples <= PILOT:  # the first ones are all that is asked
        return Sampled(question, names, first[..., :samples], factors, (pilot, first), asked)
    order = np.argsort(-importance(pilot, first), kind="stable")
    (u,) = points(samples, len(factors), seed, order)
    _, found = costs((sampler.catalog(catalog, u[at]) for at in compare.in_blocks(samples)), asked, samples)
    return Sampled(question, names, found, factors, (pilot, first), asked)


def importance(u: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What every factor does, at most over the competitors, to their costs and to their ratios to the one that is mostly cheapest."""
    middle = costs.reshape(len(costs), -1, costs.shape[-1])
    known = np.isfinite(middle).all(axis=(0, 2))
    cell = int(np.flatnonzero(known)[0]) if known.any() else 0
    logs = log_ratio(middle[:, cell])
    lead = int(np.argmin(np.median(logs, axis=-1)))
    outputs = [*logs, *(row - logs[lead] for i, row in enumerate(logs) if i != lead)]
    return ranked(u, outputs).max(axis=0)


# --- what samples say ------------------------------------------------------------------------------------------------------


def bands(costs: np.ndarray) -> np.ndarray:
    """Quantiles of cost, array (..., QUANTILES); nan where that quantile is a sample in which nothing was feasible."""
    ordered = np.sort(costs, axis=-1)
    at = np.array(QUANTILES) * (costs.shape[-1] - 1)
    low, high = ordered[..., np.floor(at).astype(int)], ordered[..., np.ceil(at).astype(int)]
    known = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        return np.where(known, low + (at - np.floor(at)) * (high - low), np.nan)


def beats(costs: np.ndarray) -> np.ndarray:
    """Probability that the first competitor is cheaper than the second: (competitor, other, ...); what is infeasible never is."""
    return np.stack([np.stack([(a < b).mean(axis=-1) for b in costs]) for a in costs])


def premium(costs: np.ndarray, limits_s: np.ndarray, limit_s: float) -> np.ndarray:
    """Quantiles of what twice the speed costs: array (scenario, QUANTILES), of costs (competitor, scenario, limit, samples)."""
    best = costs.min(axis=0)
    here, fast = (int(np.argmin(np.abs(np.log(np.asarray(limits_s) / t)))) for t in (limit_s, limit_s / 2))
    with np.errstate(invalid="ignore"):
        ratio = best[:, fast] / best[:, here]
    return bands(np.where(np.isnan(ratio), np.inf, ratio))


def cheapest(costs: np.ndarray, among: Sequence[int] | None = None) -> np.ndarray:
    """Probability of being the cheapest: array (competitor, ...); samples in which nothing is feasible count for nobody."""
    chosen = list(range(len(costs))) if among is None else list(among)
    best = costs[chosen].argmin(axis=0)
    any_ = np.isfinite(costs[chosen].min(axis=0))
    out = np.zeros((len(costs), *costs.shape[1:-1]))
    for k, i in enumerate(chosen):
        out[i] = ((best == k) & any_).mean(axis=-1)
    return out


# --- which input matters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Of the variance of an output: what one group of inputs explains alone (first), and with all that it takes part in (total)."""

    group: str
    first: float
    total: float


def log_ratio(costs: np.ndarray) -> np.ndarray:
    """Logarithms of finite costs; what is infeasible takes the largest finite value, so that variances exist."""
    logs = np.log(costs)
    finite = logs[np.isfinite(logs)]
    return np.where(np.isfinite(logs), logs, finite.max() if len(finite) else 0.0)


def standard_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks of every column with mean 0 and variance 1."""
    r = rankdata(x, axis=0)
    return (r - r.mean(axis=0)) / r.std(axis=0)


def ranked(u: np.ndarray, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Squared rank correlation of outputs with every column of ``u``: array (outputs, columns); those that never vary are left out.

    >>> u = np.array([[0.1, 0.2], [0.2, 0.9], [0.3, 0.1]])
    >>> ranked(u, [u[:, 0] ** 3, np.ones(3)]).round(3).tolist()
    [[1.0, 0.25]]
    """
    moving = [y for y in outputs if y.std() > 0]
    if not moving:
        return np.zeros((1, u.shape[1]))
    return (standard_ranks(np.stack(moving, axis=1)).T @ standard_ranks(u) / len(u)) ** 2


def grouping(factors: Sequence[Factor], weight: np.ndarray, by: Callable[[Factor], str], most: int = LEADING) -> dict[str, np.ndarray]:
    """Columns of the groups of largest weight, and of all others as one."""
    groups: dict[str, list[int]] = {}
    for k, factor in enumerate(factors):
        groups.setdefault(by(factor), []).append(k)
    order = sorted(groups, key=lambda g: -float(weight[groups[g]].sum() if len(groups[g]) < 2 else weight[groups[g]].max()))
    found = {g: np.array(groups[g]) for g in order[:most]}
    rest = [k for g in order[most:] for k in groups[g]]
    return found | ({REST: np.array(rest)} if rest else {})


def source_of(factor: Factor) -> str:
    """The source of a factor; what is an assumption of ours is told apart by its file."""
    q = factor.quantity
    return q.source if q.source != "assumption" else f"assumption: {factor.name.partition(':')[0]}"


def indices(
    outputs: Callable[[np.ndarray], np.ndarray], factors: int, groups: Mapping[str, np.ndarray], samples: int, seed: int
) -> list[list[Share]]:
    """First and total Sobol indices of groups of inputs, for every output (Saltelli's design, ``scipy.stats.sobol_indices``).

    Args:
        outputs: Values of u, array (n, factors) to (outputs, n). factors: Columns of u.
        groups: Their columns, the smallest of which get the evenest points.
        samples: A power of two; (groups + 2) times as many evaluations are made. seed: Of the points.
    """
    order = np.concatenate(sorted(groups.values(), key=len))
    a, b = points(samples, factors, seed, order, copies=2)
    matrices = [a, b]
    for columns in groups.values():
        x = a.copy()
        x[:, columns] = b[:, columns]
        matrices.append(x)
    each = max(compare.SAMPLES // samples, 1)  # small designs share the blocks in which outputs are computed
    parts = [outputs(np.concatenate(matrices[i : i + each])) for i in range(0, len(matrices), each)]
    values = np.concatenate(parts, axis=-1).reshape(len(parts[0]), len(matrices), samples)
    known = {"f_A": values[:, 0], "f_B": values[:, 1], "f_AB": np.moveaxis(values[:, 2:], 1, 0)}
    found = sobol_indices(func=known, n=samples)
    first, total = np.atleast_2d(found.first_order), np.atleast_2d(found.total_order)
    return [[Share(g, float(first[o, k]), float(total[o, k])) for k, g in enumerate(groups)] for o in range(len(first))]


def contrasts(logs: np.ndarray) -> np.ndarray:
    """Log cost of the first competitor, and log cost of every other over that of the first: (competitors, n) to (competitors, n)."""
    return np.concatenate([logs[:1], logs[1:] - logs[:1]])


def pair_outputs(
    catalog: Catalog, factors: Sequence[Factor], sides: Sequence[Sequence[Competitor]], question: Question, scenario: int, limit: int
) -> Callable[[np.ndarray], np.ndarray]:
    """``contrasts`` of u at one limit and owner; of a side of several competitors, the cheapest counts."""
    sampler = Sampler.of(catalog, factors)

    def outputs(u: np.ndarray) -> np.ndarray:
        found = []
        for at in compare.in_blocks(len(u)):
            drawn = sampler.catalog(catalog, u[at])
            costs = [[costs_of(c, question, drawn, compare.SAMPLES)[scenario, limit] for c in side] for side in sides]
            found.append(np.stack([np.min(side, axis=0) for side in costs]))
        return contrasts(log_ratio(np.concatenate(found, axis=-1)[:, : len(u)]))

    return outputs


@dataclass(frozen=True)
class Explained:
    """Sobol indices of the headline: outputs by name, and for each the shares of inputs, and of sources."""

    outputs: tuple[str, ...]
    by_input: list[list[Share]]
    by_source: list[list[Share]]


def explain(s: Sampled, catalog: Catalog, scenario: int, limit: int, samples: int, seed: int) -> Explained:
    """What the uncertainty of the winner's cost and of its lead over the next family and over chips that exist comes from."""
    median = np.median(s.costs[:, scenario, limit], axis=-1)
    families = [i for i in np.argsort(median) if s.names[i] != EXISTING and np.isfinite(median[i])][:2]
    chosen = [*families, *(i for i, n in enumerate(s.names) if n == EXISTING)]
    sides = [[c for c in s.competitors if (c.name == s.names[i] if s.names[i] != EXISTING else c.space is None)] for i in chosen]
    names = [s.names[i] for i in chosen]
    u, costs = s.pilot
    moved = contrasts(log_ratio(costs[chosen][:, scenario, limit]))
    weight = ranked(u, list(moved)).max(axis=0)
    outputs = pair_outputs(catalog, s.factors, sides, s.question, scenario, limit)
    said = (f"cost of {names[0]}", *(f"{n} against {names[0]}" for n in names[1:]))
    shares = [indices(outputs, len(s.factors), grouping(s.factors, weight, by), samples, seed) for by in (lambda f: f.name, source_of)]
    return Explained(said, *shares)


def spaces_of(study: Study, catalog: Catalog) -> dict[str, Space]:
    """Design spaces of the families of a study."""
    from dse.catalog.silicon import build_range
    from dse.chips import FAMILIES
    from dse.space import space_of

    return {f: space_of(FAMILIES[f], build_range(catalog.records["families"][f]), o) for f, o in study.families.items()}


def case_samples(
    ds: xr.Dataset, study: Study, catalog: Catalog, case: Case, samples: int, seed: int, tick: Callable[[int, int], None] = lambda *_: None
) -> Sampled:
    """Samples of one case of a result."""
    limits = tuple(float(x) for x in ds["tpot_limit"].values)
    question = Question(case, limits, tuple(str(s) for s in ds["scenario"].values))
    return sample(study, catalog, competitors_of(ds, case, spaces_of(study, catalog)), question, samples, seed, tick)


def _stated(ds: xr.Dataset, model: str, workload: str, families: Sequence[str]) -> np.ndarray:
    """Least cost of families in the result itself, with all inputs at their values: array (family, scenario, limit), inf where none."""
    here = ds.sel(model=model, workload=workload)
    cost = here["usd_per_million_output_token"].where(here["feasible"] > 0, np.inf).transpose("design", "scenario", "tpot_limit").values
    mine = (ds["status"].values == "hypothetical") & (ds["below_4_bit"].values == 0)
    return np.stack([cost[mine & (ds["family"].values == f)].min(axis=0) for f in families]) if families else np.empty((0, *cost.shape[1:]))


def into(ds: xr.Dataset, found: Mapping[tuple[str, str], Sampled]) -> xr.Dataset:
    """The Dataset with bands and probabilities of the cases that were sampled ((model id, workload id) to samples)."""
    names = list(dict.fromkeys(n for s in found.values() for n in s.names))
    limit_s = float(json.loads(ds.attrs["headline"])["tpot_limit"])
    shape = tuple(ds.sizes[d] for d in ("model", "workload", "scenario", "tpot_limit"))
    arrays: dict[str, np.ndarray] = {
        "cost_quantile": np.full((len(names), *shape, len(QUANTILES)), np.nan),
        "probability_cheapest": np.full((len(names), *shape), np.nan),
        "probability_feasible": np.full((len(names), *shape), np.nan),
        "probability_below_stated": np.full((len(names), *shape), np.nan),
        "speed_premium": np.full((*shape[:3], len(QUANTILES)), np.nan),
        "probability_cheaper": np.full((len(names), len(names), *shape), np.nan),
    }
    for (model, workload), s in found.items():
        m, w = list(ds["model"].values).index(model), list(ds["workload"].values).index(workload)
        at = [names.index(n) for n in s.names]
        families = [i for i, n in enumerate(s.names) if n != EXISTING]
        arrays["cost_quantile"][at, m, w] = bands(s.costs)
        arrays["probability_cheapest"][at, m, w] = cheapest(s.costs, families)
        arrays["probability_feasible"][at, m, w] = np.isfinite(s.costs).mean(axis=-1)
        stated = _stated(ds, model, workload, [s.names[i] for i in families])
        arrays["probability_below_stated"][[at[i] for i in families], m, w] = (s.costs[families] < stated[..., None]).mean(axis=-1)
        arrays["speed_premium"][m, w] = premium(s.costs[families], ds["tpot_limit"].values, limit_s)
        pairs = beats(s.costs)
        for i, a in enumerate(at):
            arrays["probability_cheaper"][a, at, m, w] = pairs[i]
    dims = ("model", "workload", "scenario", "tpot_limit")
    plain: dict[str, Any] = {"units": "1", "better": "none"}
    said = {
        "cost_quantile": (("competitor", *dims, "quantile"), "cost per million output tokens at a quantile", "USD/Mtoken"),
        "probability_cheapest": (("competitor", *dims), "probability of being the cheapest family", "1"),
        "probability_feasible": (("competitor", *dims), "probability of meeting the limits at all", "1"),
        "speed_premium": (
            (*dims[:3], "quantile"),
            "cost at twice the headline's speed over that at it, each time of the cheapest family",
            "1",
        ),
        "probability_cheaper": (("competitor", "other", *dims), "probability of being cheaper than the other", "1"),
        "probability_below_stated": (("competitor", *dims), "probability of costing less than at the stated values", "1"),
    }
    out = ds.drop_vars([n for n in said if n in ds]).assign_coords(competitor=names, other=names, quantile=list(QUANTILES))
    out["competitor"].attrs = plain | {"long_name": "family, or the cheapest chip that exists"}
    out["other"].attrs = plain | {"long_name": "family, or the cheapest chip that exists"}
    out["quantile"].attrs = plain | {"long_name": "probability of a lower cost"}
    for name, (over, text, unit) in said.items():
        out[name] = (over, arrays[name], plain | {"units": unit, "long_name": text})
    return out


def explained_into(ds: xr.Dataset, found: Explained, factors: Sequence[Factor]) -> xr.Dataset:
    """The Dataset with the Sobol indices of the headline, by input and by source."""
    names = {f.name: f for f in factors}
    out = ds.drop_dims([d for d in ("output", "input", "input_source") if d in ds.dims])
    coords = {
        "output": list(found.outputs),
        "input": [s.group for s in found.by_input[0]],
        "input_source": [s.group for s in found.by_source[0]],
    }
    out = out.assign_coords(coords)
    for dim, text in (("output", "what varies"), ("input", "uncertain input"), ("input_source", "source of uncertain inputs")):
        out[dim].attrs = {"units": "1", "better": "none", "long_name": text}
    for dim, table in (("input", found.by_input), ("input_source", found.by_source)):
        for which, text in (("first", "alone"), ("total", "with all that it takes part in")):
            values = np.array([[getattr(s, which) for s in row] for row in table])
            attrs = {"units": "1", "better": "none", "long_name": f"share of the variance of the logarithm of cost that it explains {text}"}
            out[f"variance_{which}_{dim}"] = (("output", dim), values, attrs)
    rows = [
        {"name": g, "kind": q.kind, "source": q.source, "unit": q.unit, "value": q.value, "low": q.low, "high": q.high,
         "distribution": names[g].distribution}
        for g in coords["input"] if g in names for q in (names[g].quantity,)
    ]  # fmt: skip
    out.attrs["uncertain_inputs"] = json.dumps(rows)
    return out
