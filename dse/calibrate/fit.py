"""Which constants make the equations agree with the rows? Robust least squares on log(predicted / measured), many chips together.

Formats and implementations of one kind of operator are fitted in one go where the plan says so: a constant on a chip is a sum of effects
that formats and chips share (``effects``). So a chip with few rows, or none, inherits the others, and few constants belong to one chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from dse.calibrate.effects import Cell, Slot, cell_of, centre_row, maps_of, slots_of, unseen_row
from dse.calibrate.plan import Fit, Plan
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
    """Constants and residuals of one fit by constants file, and the chips that each of its free numbers moves.

    A number that several fits share stands with the first of them.
    """

    fit: Fit
    constants: dict[str, dict[str, Constant]]
    residuals: dict[str, Residual]
    free: tuple[frozenset[str], ...] = ()
    centres: dict[str, dict[str, float]] = field(default_factory=dict)  # by group: what a further chip of it takes
    ran: dict[str, tuple[str, ...]] = field(default_factory=dict)  # implementations whose rows each chip has


Members = Sequence[tuple[Fit, Sequence[Sample]]]  # fits of one kind with their rows


@dataclass(frozen=True)
class Problem:
    """Fits of one kind as a function of one vector of free numbers: residuals by weight of each row, and how the vector makes constants."""

    cells: list[Cell]
    samples: list[Sample]
    index: np.ndarray  # cell of each row
    place: list[dict[str, int]]  # for each fit the cell of each of its chips
    slots: list[Slot]
    maps: dict[str, np.ndarray]
    residuals: Callable[[Any, Any], Any]
    jacobian: Callable[[Any, Any], Any]
    values: Callable[..., dict[str, Any]]  # of each leaf in each cell, also with other maps
    misfit: Callable[[Any, dict[str, np.ndarray]], Any]  # of each row, with other maps

    @property
    def chips(self) -> list[str]:
        """Chips with rows."""
        return sorted({c.chip for c in self.cells})

    def errors(self, x: np.ndarray) -> np.ndarray:
        """|predicted / measured - 1| of each row."""
        return np.abs(np.expm1(self.misfit(x, self.maps)))

    def of_chip(self, chip: str) -> np.ndarray:
        """Which rows are those of a chip."""
        return np.array([s.chip == chip for s in self.samples])


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


def ran(fit: Fit, samples: Sequence[Sample]) -> int:
    """Which set of implementations of the fit the rows of a chip ran."""
    variants = {s.job.case.variant for s in samples}
    return next((i for i, names in enumerate(fit.rows) if variants & set(names)), 0)


def _gathered(chosen: Members, plan: Plan) -> tuple[list[Cell], list[Sample], np.ndarray, list[dict[str, int]]]:
    """Cells, rows, the cell of each row, and the cells of each fit; rows that two fits take count once."""
    cells: list[Cell] = []
    samples: list[Sample] = []
    index: list[int] = []
    place: list[dict[str, int]] = []
    for fit, members in chosen:
        place.append({})
        for chip in sorted({s.chip for s in members}):
            mine = [s for s in members if s.chip == chip]
            cell = cell_of(fit, ran(fit, mine), chip, plan, mine[0].job.on.cache_byte)
            if cell not in cells:
                index += [len(cells)] * len(mine)
                samples += mine
                cells.append(cell)
            place[-1][chip] = cells.index(cell)
    return cells, samples, np.array(index), place


def _constants(cells: Sequence[Cell]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, bool]]:
    """By leaf: fixed value in each cell (nan where it is fitted), centre of the prior in log or logit, and whether it is a share.

    The last two have the leaves that are fitted in some cell.
    """
    each = {leaf.name: [next(own for own in c.leaves if own.name == leaf.name) for c in cells] for leaf in cells[0].leaves}
    fixed = {name: np.array([leaf.value if leaf.fixed else np.nan for leaf in leaves]) for name, leaves in each.items()}
    some = {name: leaves for name, leaves in each.items() if not all(leaf.fixed for leaf in leaves)}
    base = {
        name: np.array([0.0 if leaf.fixed else c.centre(leaf) for c, leaf in zip(cells, leaves, strict=True)])
        for name, leaves in some.items()
    }
    return fixed, base, {name: any(leaf.share for leaf in leaves) for name, leaves in some.items()}


def free_of(chosen: Members, plan: Plan) -> list[frozenset[str]]:
    """The chips that each free number of the fits of one kind moves, without fitting."""
    cells, *_ = _gathered(chosen, plan)
    return [frozenset(cells[i].chip for i in slot.cells) for slot in slots_of(list(_constants(cells)[1]), cells, plan)]


def problem_of(chosen: Members, plan: Plan) -> Problem:
    """The least-squares problem of the fits of one kind over their rows."""
    cells, samples, index, place = _gathered(chosen, plan)
    fixed, base, share = _constants(cells)
    slots, fit = slots_of(list(base), cells, plan), chosen[0][0]
    maps = maps_of(slots, list(base), cells)
    prior = np.array([plan.procedure["kernel_loss_scale"] / slot.sd for slot in slots])
    equation = samples[0].job.case.equation
    sizes = columns([with_bytes(s.job.case) for s in samples])
    machine = stacked([machine_of(s.job.case, s.job.on) for s in samples])
    measured = jnp.log(jnp.array([s.seconds for s in samples]))
    near = stacked([part_of(s.job.case.constants, s.job.case.variant, s.job.on) for s in samples]) if fit.part == "scale_out" else None

    def constants(inner: dict[str, Any], still: dict[str, Any]) -> dict[str, Any]:
        made = {name: jax.nn.sigmoid(v) if share[name] else jnp.exp(v) for name, v in inner.items()}
        return {name: jnp.where(jnp.isnan(v), made[name], v) if name in made else v for name, v in still.items()}

    by_row = {name: jnp.array(v[index]) for name, v in fixed.items()}

    def misfit(inner: dict[str, Any]) -> Any:
        """Log of predicted over measured, with one number a row for each free leaf (in log or logit)."""
        record = record_of(fit, equation, constants(inner, by_row), near)
        return jnp.log(EQUATIONS[equation](sizes, record, machine)) - measured

    @jax.jit
    def slopes(inner: dict[str, Any]) -> dict[str, Any]:
        """Derivative of each row's misfit by each of its leaves: rows do not see each other, so one direction a leaf is enough."""
        still = {name: jnp.zeros(len(samples)) for name in inner}
        return {name: jax.jvp(misfit, (inner,), ({**still, name: jnp.ones(len(samples))},))[1] for name in inner}

    fast = jax.jit(misfit)

    def inner_of(x: np.ndarray, matrices: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: (base[name] + matrices[name] @ x)[index] for name in base}

    def values(x: np.ndarray, matrices: dict[str, np.ndarray] = maps) -> dict[str, Any]:
        return constants({name: base[name] + matrices[name] @ x for name in base}, fixed)

    def misfit_with(x: np.ndarray, matrices: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(fast(inner_of(x, matrices)))

    def residuals(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.concatenate([weights * misfit_with(x, maps), prior * x])

    def jacobian(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        found = slopes(inner_of(x, maps))
        upper = sum(np.asarray(found[name])[:, None] * maps[name][index] for name in found)
        return np.concatenate([weights[:, None] * upper, np.diag(prior)])

    return Problem(cells, samples, index, place, slots, maps, residuals, jacobian, values, misfit_with)


def solve(problem: Problem, weights: np.ndarray, procedure: dict[str, float], start: np.ndarray | None = None) -> np.ndarray:
    """The vector with the least soft-L1 loss, deterministic: Newton steps in a trust region, on the small square matrix of second
    derivatives (those of the loss exact, the curvature of the model left out), not on a row for each measurement."""
    x0, scale = np.zeros(len(problem.slots)) if start is None else start, procedure["kernel_loss_scale"]
    kept = np.concatenate([weights > 0, np.ones(len(x0), bool)])
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def last(name: str, x: np.ndarray, of: Callable[[Any, Any], Any]) -> np.ndarray:
        """Residuals or Jacobian at a point over the loss's scale, computed once."""
        if name not in known or not np.array_equal(known[name][0], x):
            known[name] = (x.copy(), of(x, weights)[kept] / scale)
        return known[name][1]

    def gradient(x: np.ndarray) -> np.ndarray:
        r = last("residuals", x, problem.residuals)
        return last("jacobian", x, problem.jacobian).T @ (r / np.sqrt(1.0 + r * r))

    def curvature(x: np.ndarray) -> np.ndarray:
        r, jacobian = last("residuals", x, problem.residuals), last("jacobian", x, problem.jacobian)
        return (jacobian * ((1.0 + r * r) ** -1.5)[:, None]).T @ jacobian

    options = {"gtol": procedure["steepest"], "maxiter": int(procedure["max_evaluations"])}
    return minimize(
        lambda x: _soft(last("residuals", x, problem.residuals)), x0, jac=gradient, hess=curvature, method="trust-exact", options=options
    ).x


def _soft(r: np.ndarray) -> float:
    """Soft-L1 loss of residuals over their scale."""
    return float((np.sqrt(1.0 + r * r) - 1.0).sum())


def _loss(problem: Problem, x: np.ndarray, weights: np.ndarray, scale: float) -> float:
    """Soft-L1 loss over weighted rows and priors."""
    return _soft(problem.residuals(x, weights) / scale)


def optimum(
    problem: Problem, procedure: dict[str, float], starts: int, weights: np.ndarray | None = None, first: np.ndarray | None = None
) -> np.ndarray:
    """The best of several solutions: from the priors (or a ``first`` point), and from fixed random points about the priors, because
    regimes make the loss not convex."""
    rng = np.random.default_rng(0)
    points = [first, *(procedure["start_sd"] * rng.standard_normal(len(problem.slots)) for _ in range(starts - 1))]
    rows = np.ones(len(problem.samples)) if weights is None else weights
    found = [solve(problem, rows, procedure, p) for p in points]
    return min(found, key=lambda x: _loss(problem, x, rows, procedure["kernel_loss_scale"]))


def _intervals(problem: Problem, x: np.ndarray, plan: Plan) -> list[dict[str, Constant]]:
    """In each cell each constant with the 90 % interval that curvature and scatter of the fit give."""
    jacobian, errors = problem.jacobian(x, np.ones(len(problem.samples))), problem.errors(x)
    covariance = np.linalg.pinv(jacobian.T @ jacobian)
    values = {k: np.asarray(v) for k, v in problem.values(x).items()}
    least, most = plan.procedure["smallest_interval"], plan.procedure["widest_interval"]
    made: list[dict[str, Constant]] = []
    for i, cell in enumerate(problem.cells):
        made.append({})
        scatter = max(float(np.median(errors[problem.index == i])) * 1.5, plan.procedure["loss_scale"] / 2)
        for leaf in cell.leaves:
            v = float(values[leaf.name][i])
            if leaf.fixed:
                made[i][leaf.name] = Constant(v, v, v)
                continue
            row = problem.maps[leaf.name][i]
            sd = float(np.sqrt(row @ covariance @ row)) * scatter * ((1 - v) if leaf.share else 1.0)
            width = float(np.clip(np.exp(QUANTILE_90 * sd), 1 + least, most))
            made[i][leaf.name] = Constant(v, v / width, min(v * width, 1.0) if leaf.share else v * width)
    return made


def _left_out(problem: Problem, x: np.ndarray, plan: Plan) -> np.ndarray:
    """Error of each row when all rows of its shape are left out (folds over the shapes of each fit)."""
    errors = np.full(len(problem.samples), np.nan)
    folds = np.zeros(len(problem.samples), dtype=int)
    for kernel in {c.kernel for c in problem.cells}:
        mine = [r for r, i in enumerate(problem.index) if problem.cells[i].kernel == kernel]
        shapes = sorted({problem.samples[r].shape for r in mine})
        for r in mine:
            folds[r] = shapes.index(problem.samples[r].shape) % int(plan.procedure["folds"])
    for fold in range(int(plan.procedure["folds"])):
        out = folds == fold
        if out.any() and not out.all():
            errors[out] = problem.errors(solve(problem, (~out).astype(float), plan.procedure, x))[out]
    return errors


def _unseen(problem: Problem, x: np.ndarray, starts: int, plan: Plan, same: bool) -> np.ndarray:
    """Error of each row with its chip left out (``same``: generation kept), or with its whole generation left out.

    Rows count where other chips (of the same generation) run the same implementation.
    """
    errors = np.full(len(problem.samples), np.nan)
    chips = problem.chips
    generation = {c.chip: c.generation for c in problem.cells}
    solved: dict[tuple[str, ...], np.ndarray] = {}
    for chip in chips:
        out = tuple(c for c in chips if (c == chip if same else generation[c] == generation[chip]))
        rest = [c for c in chips if c not in out]
        donors = [c for c in rest if not same or generation[c] == generation[chip]]
        cells = problem.cells
        told = [i for i, c in enumerate(cells) if c.chip == chip and any(o.kernel == c.kernel and o.chip in donors for o in cells)]
        if not told:
            continue
        if out not in solved:
            kept = (~np.isin([s.chip for s in problem.samples], out)).astype(float)
            solved[out] = optimum(problem, plan.procedure, starts, kept, x)
        maps = {name: matrix.copy() for name, matrix in problem.maps.items()}
        for name, matrix in problem.maps.items():
            for i in told:
                maps[name][i] = unseen_row(name, matrix, i, cells, donors)
        mine = np.isin(problem.index, told)
        errors[mine] = np.abs(np.expm1(problem.misfit(solved[out], maps)))[mine]
    return errors


def _figures(errors: np.ndarray) -> tuple[float, float]:
    """Median and 90th percentile; nan where a row has no error."""
    if not errors.size or np.isnan(errors).any():
        return math.nan, math.nan
    return float(np.median(errors)), float(np.percentile(errors, 90))


def _centres(problem: Problem, x: np.ndarray, place: dict[str, int]) -> dict[str, dict[str, float]]:
    """By group what a further chip of it takes, for a fit whose constants have a centre shared by all chips."""
    groups: dict[str, list[int]] = {}
    for i in place.values():
        groups.setdefault(problem.cells[i].group, []).append(i)
    found: dict[str, dict[str, float]] = {}
    for group, members in groups.items():
        leaves = problem.cells[members[0]].leaves
        if len({problem.cells[i].kernel for i in members}) > 1 or not any(f.effects[0].endswith("@all") for f in leaves if not f.fixed):
            continue
        rows = dict(problem.maps)
        for leaf in leaves:
            if not leaf.fixed:
                matrix = problem.maps[leaf.name]
                row = centre_row(matrix, members) if leaf.effects[0].endswith("@all") else matrix[members].mean(axis=0)
                rows[leaf.name] = np.tile(row, (len(problem.cells), 1))
        values = problem.values(x, rows)
        found[group] = {leaf.name: float(values[leaf.name][members[0]]) for leaf in leaves}
    return found


def run_joint(chosen: Members, plan: Plan, cross_validate: bool = True) -> list[Fitted]:
    """Fit the parts of one kind over all their chips; with ``cross_validate`` also with shapes, chips and generations left out."""
    problem, first = problem_of(chosen, plan), chosen[0][0]
    starts = int(plan.procedure["starts"]) if first.part == "all_reduce" else 1  # several where regimes make the loss not convex
    x = optimum(problem, plan.procedure, starts)
    blank = np.full(len(problem.samples), np.nan)
    errors = [problem.errors(x), blank, blank, blank]
    if cross_validate:
        errors[1:] = [_left_out(problem, x, plan), *(_unseen(problem, x, starts, plan, same) for same in (True, False))]
    made = _intervals(problem, x, plan)
    found, counted = [], set()
    for (fit, _), place in zip(chosen, problem.place, strict=True):
        residuals = {}
        for chip, i in place.items():
            mine = problem.index == i
            residuals[chip] = Residual(int(mine.sum()), *(v for e in errors for v in _figures(e[mine])))
        own = [j for j, slot in enumerate(problem.slots) if j not in counted and slot.cells & set(place.values())]
        counted |= set(own)
        free = tuple(frozenset(problem.cells[i].chip for i in problem.slots[j].cells) for j in own)
        ran_of = {chip: problem.cells[i].rows for chip, i in place.items()}
        found.append(Fitted(fit, {chip: made[i] for chip, i in place.items()}, residuals, free, _centres(problem, x, place), ran_of))
    return found
