"""Which constants make the equations agree with the rows? Robust least squares on log(predicted / measured), chips of a group together.

Chips of a group share a centre for each constant and scatter about it within a weak prior; what is marked per group is one value.
So a chip with few rows, or none, inherits its group, and few constants belong to one chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from dse.calibrate.plan import Fit, Leaf, Plan
from dse.types import AllReduce, Collective
from dse.validate.operators import RECORDS, Job, machine_of, part_of, with_bytes
from dse.validate.predict import EQUATIONS, Exchange, Levels, columns, stacked

NO_LATENCY = {"base_s": 0.0, "peer_s": 0.0, "efficiency": 1.0}
QUANTILE_90 = 1.645  # of the normal distribution: a two-sided interval of 90 %


@dataclass(frozen=True)
class Sample:
    """A measured case: its job, its chip's constants file, the measured time and the shape it is cross-validated by."""

    job: Job
    chip: str
    seconds: float
    shape: tuple[float, ...]


@dataclass(frozen=True)
class Constant:
    """A fitted constant in SI, with a 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Residual:
    """Errors |predicted / measured - 1|: in fit, and of what a fit has not seen (nan where that cannot be).

    A chip left out takes the mean over the other chips of its generation (``same``), or, with its whole generation left out, of the
    other generations (``other``).
    """

    n: int
    median: float
    p90: float
    by_shape: float = math.nan
    by_shape_p90: float = math.nan
    same: float = math.nan
    same_p90: float = math.nan
    other: float = math.nan
    other_p90: float = math.nan


@dataclass(frozen=True)
class Fitted:
    """Constants and residuals of one fit, by constants file, and the group with which a file shares constants."""

    fit: Fit
    constants: dict[str, dict[str, Constant]]
    residuals: dict[str, Residual]
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """The fit as a function of one vector: residuals by weight of each row, and how the vector makes constants."""

    residuals: Callable[[Any, Any], Any]
    jacobian: Callable[[Any, Any], Any]
    values: Callable[[Any], dict[str, Any]]
    as_mean: Callable[[Any, Sequence[int]], Any]  # misfit of every row with the mean constants of some chips
    size: int
    rows: int


def is_far(job: Job) -> bool:
    """Whether the operator leaves the scale-up domain."""
    sizes = job.case.sizes
    return bool(sizes.get("far")) or sizes.get("inside", sizes.get("n", 0.0)) < sizes.get("n", 0.0)


def record_of(fit: Fit, equation: str, leaves: dict[str, Any], near: Any = None) -> Any:
    """Leaves as the record that the equation takes; the other network level costs nothing, or what ``near`` says."""
    own = RECORDS[fit.part.split(".")[0]](**leaves)
    like = next(iter(leaves.values()))
    none = {k: jnp.full_like(like, v) for k, v in NO_LATENCY.items()}
    if equation == "all_reduce" and fit.part == "scale_out":
        idle = {f: jnp.ones_like(like) if "efficiency" in f else jnp.zeros_like(like) for f in AllReduce.__dataclass_fields__}
        return Levels(inner=AllReduce(**idle), outer=own)
    if equation == "all_reduce":
        return Levels(inner=own, outer=Collective(**none))
    if equation == "expert_exchange" and fit.part == "scale_out":
        return Exchange(near=near, far=own)
    return Exchange(near=own, far=own) if equation in ("expert_exchange", "send") else own


def ran(fit: Fit, samples: Sequence[Sample], chip: str) -> int:
    """Which set of implementations of the fit the rows of a chip ran."""
    variants = {s.job.case.variant for s in samples if s.chip == chip}
    return next((i for i, names in enumerate(fit.rows) if variants & set(names)), 0)


def groups_of(fit: Fit, samples: Sequence[Sample], chips: Sequence[str], plan: Plan) -> list[str]:
    """The group of each chip: those that share constants run the same implementation of the kernel."""
    return [" ".join((plan.group_of(c), *(str(i) for i in [ran(fit, samples, c)] if i))) for c in chips]


def _slots(leaves: Sequence[Leaf], chips: Sequence[str], groups: Sequence[str]) -> list[tuple[str, str]]:
    """Names of the numbers in the vector: (leaf, group) centres and (leaf, chip) offsets."""
    slots = []
    for leaf in leaves:
        slots += [(leaf.name, g) for g in dict.fromkeys(groups)]
        slots += [(leaf.name, f"chip {c}") for c, g in zip(chips, groups, strict=True) if leaf.per_chip and groups.count(g) > 1]
    return slots


def _maps(leaves: Sequence[Leaf], chips: Sequence[str], groups: Sequence[str], plan: Plan) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """For each leaf the matrix from vector to chips (in log or logit, from the prior's centre), and the priors' weights."""
    slots = _slots(leaves, chips, groups)
    scale = plan.procedure["loss_scale"]
    by_leaf = {leaf.name: np.zeros((len(chips), len(slots))) for leaf in leaves}
    weight = np.zeros(len(slots))
    sd = {leaf.name: leaf.sd for leaf in leaves}
    for j, (name, owner) in enumerate(slots):
        weight[j] = scale / (plan.procedure["chip_sd"] if owner.startswith("chip ") else sd[name])
        for i, c in enumerate(chips):
            by_leaf[name][i, j] = float(owner in (groups[i], f"chip {c}"))
    return by_leaf, weight


def problem_of(fit: Fit, samples: Sequence[Sample], plan: Plan) -> tuple[Problem, list[str]]:
    """The least-squares problem of one fit over its samples, and the chips in it."""
    chips = sorted({s.chip for s in samples})
    free = [leaf for leaf in fit.leaves if not leaf.fixed]
    by_leaf, prior = _maps(free, chips, groups_of(fit, samples, chips, plan), plan)
    index = np.array([chips.index(s.chip) for s in samples])
    equation = samples[0].job.case.equation
    sizes = columns([with_bytes(s.job.case) for s in samples])
    machine = stacked([machine_of(s.job.case, s.job.on) for s in samples])
    measured = jnp.log(jnp.array([s.seconds for s in samples]))
    near = stacked([part_of(s.job.case.constants, "", s.job.on) for s in samples]) if fit.part == "scale_out" else None
    rows = {name: matrix[index] for name, matrix in by_leaf.items()}
    fixed = {leaf.name: jnp.full(len(samples), leaf.value) for leaf in fit.leaves if leaf.fixed}

    def constants(inner: dict[str, Any]) -> dict[str, Any]:
        return {leaf.name: jax.nn.sigmoid(inner[leaf.name]) if leaf.share else jnp.exp(inner[leaf.name]) for leaf in free}

    def misfit(inner: dict[str, Any]) -> Any:
        """Log of predicted over measured, with one number a row for each free leaf (in log or logit)."""
        record = record_of(fit, equation, {**constants(inner), **fixed}, near)
        return jnp.log(EQUATIONS[equation](sizes, record, machine)) - measured

    @jax.jit
    def slopes(inner: dict[str, Any]) -> dict[str, Any]:
        """Derivative of each row's misfit by each of its leaves: rows do not see each other, so one direction a leaf is enough."""
        still = {name: jnp.zeros(len(samples)) for name in inner}
        return {name: jax.jvp(misfit, (inner,), ({**still, name: jnp.ones(len(samples))},))[1] for name in inner}

    fast = jax.jit(misfit)

    def inner_of(x: np.ndarray, matrices: dict[str, np.ndarray]) -> dict[str, Any]:
        return {leaf.name: leaf.base + matrices[leaf.name] @ x for leaf in free}

    def values(x: np.ndarray) -> dict[str, Any]:
        return constants(inner_of(x, by_leaf)) | {leaf.name: np.full(len(chips), leaf.value) for leaf in fit.leaves if leaf.fixed}

    def as_mean(x: np.ndarray, donors: Sequence[int]) -> np.ndarray:
        mean = {name: np.broadcast_to(matrix[list(donors)].mean(axis=0), rows[name].shape) for name, matrix in by_leaf.items()}
        return np.asarray(fast(inner_of(x, mean)))

    def residuals(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.concatenate([weights * np.asarray(fast(inner_of(x, rows))), prior * x])

    def jacobian(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        by_row = slopes(inner_of(x, rows))
        upper = sum(np.asarray(by_row[name])[:, None] * rows[name] for name in by_row)
        return np.concatenate([weights[:, None] * upper, np.diag(prior)])

    parts = Problem(residuals, jacobian, values, as_mean, len(prior), len(samples))
    return parts, chips


def solve(problem: Problem, weights: np.ndarray, procedure: dict[str, float], start: np.ndarray | None = None) -> np.ndarray:
    """The vector with the least soft-L1 loss, deterministic."""
    x0 = np.zeros(problem.size) if start is None else start
    found = least_squares(
        lambda x: problem.residuals(x, weights),
        x0,
        jac=lambda x: problem.jacobian(x, weights),
        loss="soft_l1",
        f_scale=procedure["loss_scale"],
        max_nfev=int(procedure["max_evaluations"]),
    )
    return found.x


def _loss(problem: Problem, x: np.ndarray, weights: np.ndarray, scale: float) -> float:
    """Soft-L1 loss over weighted rows and priors."""
    r = problem.residuals(x, weights) / scale
    return float((np.sqrt(1.0 + r * r) - 1.0).sum())


def optimum(problem: Problem, procedure: dict[str, float], starts: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The best of several solutions: from the priors, and from fixed random points about them (regimes make the loss not convex)."""
    rng = np.random.default_rng(0)
    points = [None, *(procedure["start_sd"] * rng.standard_normal(problem.size) for _ in range(starts - 1))]
    rows = np.ones(problem.rows) if weights is None else weights
    found = [solve(problem, rows, procedure, p) for p in points]
    return min(found, key=lambda x: _loss(problem, x, rows, procedure["loss_scale"]))


def _errors(problem: Problem, x: np.ndarray) -> np.ndarray:
    return np.abs(np.expm1(np.asarray(problem.residuals(x, np.ones(problem.rows)))[: problem.rows]))


def _intervals(
    fit: Fit, problem: Problem, x: np.ndarray, chips: list[str], groups: list[str], plan: Plan
) -> dict[str, dict[str, Constant]]:
    """Each constant with the 90 % interval that curvature and scatter of the fit give."""
    weights = np.ones(problem.rows)
    jacobian = np.asarray(problem.jacobian(x, weights))
    scatter = max(float(np.median(_errors(problem, x))) * 1.5, plan.procedure["loss_scale"] / 2)
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * scatter**2
    free = [leaf for leaf in fit.leaves if not leaf.fixed]
    by_leaf, _ = _maps(free, chips, groups, plan)
    values = {k: np.asarray(v) for k, v in problem.values(x).items()}
    least, most = plan.procedure["smallest_interval"], plan.procedure["widest_interval"]
    made: dict[str, dict[str, Constant]] = {c: {} for c in chips}
    for leaf in fit.leaves:
        for i, c in enumerate(chips):
            v = float(values[leaf.name][i])
            if leaf.fixed:
                made[c][leaf.name] = Constant(v, v, v)
                continue
            row = by_leaf[leaf.name][i]
            sd = float(np.sqrt(row @ covariance @ row)) * ((1 - v) if leaf.share else 1.0)
            width = float(np.clip(np.exp(QUANTILE_90 * sd), 1 + least, most))
            made[c][leaf.name] = Constant(v, v / width, min(v * width, 1.0) if leaf.share else v * width)
    return made


def _left_out(problem: Problem, samples: Sequence[Sample], x: np.ndarray, keys: Sequence[Any], procedure: dict[str, float]) -> np.ndarray:
    """Error of each row when all rows with its key are left out."""
    errors = np.full(len(samples), np.nan)
    for key in sorted(set(keys), key=str):
        out = np.array([k == key for k in keys])
        if out.all():
            continue
        errors[out] = _errors(problem, solve(problem, (~out).astype(float), procedure, x))[out]
    return errors


def _unseen(problem: Problem, fit: Fit, samples: Sequence[Sample], chips: Sequence[str], plan: Plan, same: bool) -> np.ndarray:
    """Error of each row with its chip left out (``same``: generation kept), or with its whole generation left out.

    The chip takes the mean over others that run the same implementation of the kernel, of its own group where there are any.
    """
    kernels = [ran(fit, samples, c) for c in chips]
    errors = np.full(len(samples), np.nan)
    of_row = np.array([chips.index(s.chip) for s in samples])
    generations = [plan.generations.get(c, c) for c in chips]
    groups = groups_of(fit, samples, chips, plan)
    for i in range(len(chips)):
        out = [j for j, g in enumerate(generations) if (j == i if same else g == generations[i])]
        rest = [j for j in range(len(chips)) if j not in out and (not same or generations[j] == generations[i])]
        rest = [j for j in rest if kernels[j] == kernels[i]]
        near = [j for j in rest if groups[j] == groups[i]] or rest
        if not near:
            continue
        x = optimum(problem, plan.procedure, _starts(fit, plan), (~np.isin(of_row, out)).astype(float))
        mine = of_row == i
        errors[mine] = np.abs(np.expm1(problem.as_mean(x, near)))[mine]
    return errors


def _figures(errors: np.ndarray) -> tuple[float, float]:
    """Median and 90th percentile; nan where a row has no error."""
    if not errors.size or np.isnan(errors).any():
        return math.nan, math.nan
    return float(np.median(errors)), float(np.percentile(errors, 90))


def _starts(fit: Fit, plan: Plan) -> int:
    """Solutions to choose from: several where regimes make the loss not convex."""
    return int(plan.procedure["starts"]) if fit.part == "all_reduce" else 1


def run_fit(fit: Fit, samples: Sequence[Sample], plan: Plan, cross_validate: bool = True) -> Fitted:
    """Fit one part over all its chips; with ``cross_validate`` also with shapes, chips and generations left out."""
    problem, chips = problem_of(fit, samples, plan)
    x = optimum(problem, plan.procedure, _starts(fit, plan))
    shapes = sorted({s.shape for s in samples})
    folds = [shapes.index(s.shape) % int(plan.procedure["folds"]) for s in samples]
    blank = np.full(len(samples), np.nan)
    errors = [_errors(problem, x), blank, blank, blank]
    if cross_validate:
        errors[1:] = [
            _left_out(problem, samples, x, folds, plan.procedure),
            _unseen(problem, fit, samples, chips, plan, same=True),
            _unseen(problem, fit, samples, chips, plan, same=False),
        ]
    residuals = {}
    for c in chips:
        mine = np.array([s.chip == c for s in samples])
        residuals[c] = Residual(int(mine.sum()), *(v for e in errors for v in _figures(e[mine])))
    groups = groups_of(fit, samples, chips, plan)
    return Fitted(fit, _intervals(fit, problem, x, chips, groups, plan), residuals, dict(zip(chips, groups, strict=True)))
