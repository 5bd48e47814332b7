"""What do engines and chips pay beside the benchmarked kernels? A few constants of ``types.System`` from aggregated serving runs.

System constants stay near physical priors because few models on few chips cannot separate them: ten free global ones win two points in
fit and lose three to five on an unseen chip. Those that are fitted act on floors, host time, waiting and interference, never on work:
one share of the kernel floors for each chip, one of the experts' floors for all, and for each engine what ``_engines.toml`` holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from dse.calibrate.files import Lines, line, pooled, wider
from dse.calibrate.fit import QUANTILE_90, Constant
from dse.calibrate.plan import Plan, SystemLeaf
from dse.catalog import Catalog
from dse.validate.engines import base_of, engine_of
from dse.validate.resolve import Chips
from dse.validate.rows import every_row, excluded_by, read_folder, read_rules
from dse.validate.runs import Models, Run, run_of
from dse.validate.shapes import Unpredictable
from dse.validate.summary import APART
from dse.validate.systems import Evaluator, latency_of, metric_of, unit_of_row

METRICS = {"tpot": "tpot_s", "tpot_mean": "tpot_s", "ttft": "ttft_s", "ttft_mean": "ttft_s", "ttft_median": "ttft_s"}
LATENCY = "latency_s"  # of whole requests of a static batch, where a table gives nothing else
OFFLINE = "offline_s"  # from one output token of a queued run to the next: what a release is fitted to that no serving run names
RATE = "output_throughput_total"
KNOWN = {"aggregated": METRICS, "static batch": {"e2e_latency": LATENCY}, "offline max throughput": {RATE: OFFLINE}}
SOURCE = "dse-system-fit"
ALL = "all"
LEFT_OUT = ("chip", "model", "engine")
STEP = 0.05  # relative, of the difference that gives a sensitivity
ROUNDS = 2  # the model is nearly linear in these constants: it is linearised, fitted, and linearised again
OF_THE_TRAFFIC = ("routing_exponent",)  # says what requests do, whatever serves them: the ideal constants hold the same
IDEAL = "ideal"
LATEST = "mean over the fitted engines in their latest generation"
ERRORS = {"tpot_s": "tpot_error", "ttft_s": "ttft_error"}  # leaf that says how far predictions of a latency are off
ERROR_SPREAD = (0.7, 1.5)  # low and high of that leaf about its value: what a chip, a model or an engine more or less does to it

Slot = tuple[str, str]  # leaf, and the chip, engine or ``all`` that it belongs to


@dataclass(frozen=True)
class Step:
    """A measured latency of an aggregated run: ``what`` is a field of the answer, ``group`` (chip, model, engine, format) its weight."""

    run: Run
    what: str
    seconds: float
    group: tuple[str, str, str, str]


@dataclass(frozen=True)
class SystemFit:
    """Fitted constants by slot with 90 % intervals, and relative errors of the runs: in fit, and with groups of them left out."""

    values: dict[Slot, Constant]
    steps: tuple[Step, ...]
    errors: np.ndarray
    left_out: dict[str, np.ndarray] = field(default_factory=dict)


def steps_of(folder: Path, catalog: Catalog) -> list[Step]:
    """Latencies of aggregated runs, and rates of queued ones: no flag, not excluded, no speculative decoding, a known engine.

    Queued runs count for releases of which no latency is known: the others are predicted with what their latencies give.
    """
    tables, _ = read_folder(folder)
    models, rules, chips = Models(catalog), read_rules(), Chips(catalog, {})
    found = []
    for file, row in every_row(tables):
        metrics = KNOWN.get(row.get("mode", ""), {})
        if row.get("metric") not in metrics or row.get("flag") or excluded_by(rules, file, row):
            continue
        engine = engine_of(row["software"])
        try:
            run = run_of(row, row["chip"], models)
        except Unpredictable:
            continue
        if engine:
            group = (row["chip"], run.model, base_of(engine), row["precision_weights"])
            what, value = metrics[row["metric"]], float(row["value"]) * unit_of_row(row)
            found.append(Step(run, what, 1.0 / value if what == OFFLINE else value, group))
    served = {s.run.engine for s in found if s.what != OFFLINE}
    apart = {s.run.chip for s in found if getattr(chips.find(s.run.chip), "id", "") in APART}
    return [s for s in found if s.what != OFFLINE or not (s.run.engine in served or s.run.chip in apart)]


def owner(leaf: SystemLeaf, run: Run) -> str:
    """The chip, the engine or the generation of it that a constant of a run belongs to."""
    return owners(run.chip, run.engine).get(leaf.per, ALL)


def owners(chip: str, engine: str) -> dict[str, str]:
    """Who a constant of a run may belong to, by the plan's word for it."""
    return {"chip": chip, "engine": base_of(engine), "release": engine}


def predicted(steps: Sequence[Step], catalog: Catalog, chips: Chips, values: Callable[[str, str], Mapping[str, float]]) -> np.ndarray:
    """Predicted latencies with leaves of ``types.System`` given by chip and engine [s]."""
    evaluator = Evaluator(chips, catalog, values)
    evaluator.settle(s.run for s in steps)

    def seconds(s: Step) -> float:
        if s.what == OFFLINE:
            return 1.0 / metric_of(RATE, s.run, evaluator)
        return latency_of(s.run, evaluator) if s.what == LATENCY else float(getattr(evaluator.metrics(s.run, s.run.serving), s.what))

    return np.array([seconds(s) for s in steps])


class Problem:
    """Latencies as a linear function of the constants about a point; constants are ``centre x exp(x)`` with a Gaussian prior on x."""

    def __init__(
        self,
        steps: Sequence[Step],
        leaves: Sequence[SystemLeaf],
        catalog: Catalog,
        plan: Plan,
        fixed: Mapping[Slot, float],
        chips: Chips | None,
    ):
        self.fixed, self.earlier = fixed, [leaf for leaf in plan.system if leaf.name in {name for name, _ in fixed}]
        self.steps, self.leaves, self.catalog, self.plan = tuple(steps), tuple(leaves), catalog, plan
        self.chips = chips or Chips(catalog, {})
        self.slots: list[Slot] = sorted({(leaf.name, owner(leaf, s.run)) for leaf in leaves for s in steps})
        self.centre = np.array([next(leaf.value for leaf in leaves if leaf.name == name) for name, _ in self.slots])
        self.sd = np.array([next(leaf.sd for leaf in leaves if leaf.name == name) for name, _ in self.slots])
        self.measured = np.array([s.seconds for s in steps])
        sizes = Counter(s.group for s in steps)
        weights = np.array([sizes[s.group] ** -0.5 for s in steps])
        self.weights = weights / weights.mean()
        where = {slot: j for j, slot in enumerate(self.slots)}
        self.used = np.array([[where[leaf.name, owner(leaf, s.run)] for leaf in leaves] for s in steps])

    def values(self, x: np.ndarray, scaled: str = "") -> Callable[[str, str], dict[str, float]]:
        """Leaves by chip and engine at a point; one of them a step larger."""
        table = {**self.fixed, **dict(zip(self.slots, self.centre * np.exp(x), strict=True))}

        def leaves(chip: str, engine: str) -> dict[str, float]:
            who = owners(chip, engine)
            at = [(leaf.name, who.get(leaf.per, ALL)) for leaf in [*self.earlier, *self.leaves]]
            return {slot[0]: table[slot] * (1.0 + STEP) if slot[0] == scaled else table[slot] for slot in at if slot in table}

        return leaves

    def linearise(self, x: np.ndarray) -> None:
        """Latencies and their sensitivities at a point."""
        self.at = self.centre * np.exp(x)
        self.base = predicted(self.steps, self.catalog, self.chips, self.values(x))
        each = [predicted(self.steps, self.catalog, self.chips, self.values(x, leaf.name)) for leaf in self.leaves]
        self.slope = np.stack([(t - self.base) for t in each], axis=1) / (STEP * self.at[self.used])

    def seconds(self, x: np.ndarray) -> np.ndarray:
        """Latencies of the linear function [s]."""
        moved = (self.centre * np.exp(x) - self.at)[self.used]
        return np.maximum(self.base + np.sum(self.slope * moved, axis=1), 1e-9)

    def residuals(self, x: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Weighted log errors of the kept steps, and the priors."""
        errors = np.where(keep, self.weights, 0.0) * np.log(self.seconds(x) / self.measured)
        return np.concatenate([errors, self.plan.procedure["loss_scale"] * x / self.sd])

    def solve(self, keep: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The point with the least soft-L1 loss over the kept steps."""
        scale = self.plan.procedure["loss_scale"]
        return least_squares(self.residuals, start, args=(keep,), loss="soft_l1", f_scale=scale, max_nfev=100).x

    def errors(self, x: np.ndarray) -> np.ndarray:
        """Signed relative errors of all steps."""
        return self.seconds(x) / self.measured - 1.0

    def left_out(self, keys: Sequence[Hashable], x: np.ndarray) -> np.ndarray:
        """Error of each step when all steps with its key are left out of the fit."""
        errors = np.full(len(self.steps), np.nan)
        for key in sorted(set(keys), key=str):
            out = np.array([k == key for k in keys])
            errors[out] = self.errors(self.solve(~out, x))[out]
        return errors

    def constants(self, x: np.ndarray) -> dict[Slot, Constant]:
        """Each constant with the interval that curvature and scatter give, never narrower than the plan's spread."""
        keep = np.ones(len(self.steps), dtype=bool)
        nudge = 1e-4
        eye = nudge * np.eye(len(x))
        jacobian = np.stack([(self.residuals(x + e, keep) - self.residuals(x - e, keep)) / (2 * nudge) for e in eye], axis=1)
        scatter = max(1.5 * float(np.median(np.abs(self.errors(x)))), self.plan.procedure["loss_scale"] / 2)
        sd = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian))) * scatter
        width = np.clip(np.exp(QUANTILE_90 * sd), self.plan.procedure["floor_spread"], self.plan.procedure["widest_interval"])
        values = self.centre * np.exp(x)
        alone = {leaf.name for leaf in self.leaves if leaf.alone}
        felt = {self.slots[j] for j in np.unique(self.used[self.slope != 0.0])}
        found = {slot: Constant(float(v), float(v / w), float(v * w)) for slot, v, w in zip(self.slots, values, width, strict=True)}
        return {slot: c for slot, c in found.items() if slot in felt or slot[0] not in alone}


def fit_stage(
    steps: Sequence[Step],
    leaves: Sequence[SystemLeaf],
    catalog: Catalog,
    plan: Plan,
    fixed: Mapping[Slot, float] | None = None,
    cross: Sequence[str] = (),
    chips: Chips | None = None,
) -> SystemFit:
    """Fit leaves to latencies, on top of ``fixed`` ones; ``cross`` names of what (of ``LEFT_OUT``) each is also left out."""
    problem = Problem(steps, leaves, catalog, plan, fixed or {}, chips)
    x = np.zeros(len(problem.slots))
    everything = np.ones(len(steps), dtype=bool)
    for _ in range(ROUNDS):
        problem.linearise(x)
        x = problem.solve(everything, x)
    out = {name: problem.left_out([s.group[LEFT_OUT.index(name)] for s in steps], x) for name in cross}
    return SystemFit(problem.constants(x), tuple(steps), problem.errors(x), out)


def fit_system(folder: Path, catalog: Catalog, plan: Plan, cross: Sequence[str] = (), chips: Chips | None = None) -> dict[str, SystemFit]:
    """The stages of the plan: first the time per output token, then, with those constants in place, the time to the first."""
    steps = steps_of(folder, catalog)
    made: dict[str, SystemFit] = {}
    fixed: dict[Slot, float] = {}
    for what in dict.fromkeys(leaf.what for leaf in plan.system):
        leaves = [leaf for leaf in plan.system if leaf.what == what]
        made[what] = fit_stage([s for s in steps if s.what == what], leaves, catalog, plan, fixed, cross, chips)
        fixed.update({slot: c.value for slot, c in made[what].values.items()})
    return made


def note_of(fit: SystemFit, leaf: SystemLeaf, who: str) -> str:
    """Residual of the runs that a constant was fitted to, in words."""
    mine = np.array([owner(leaf, s.run) == who for s in fit.steps])
    size = np.abs(fit.errors[mine])
    name = {
        "tpot_s": "time per output token of", "ttft_s": "time to the first token of", LATENCY: "latency of static batches in",
        OFFLINE: "throughput of queued requests in",
    }[leaf.what]  # fmt: skip
    return f"{name} {mine.sum()} runs: median error {100 * np.median(size):.1f} %, p90 {100 * np.percentile(size, 90):.0f} %"


def error_lines(fits: Mapping[str, SystemFit], plan: Plan, catalog: Catalog) -> dict[str, Lines]:
    """How far predictions are off: of a chip with serving runs those in fit, of every other one those of chips left out of the fit."""
    chips = Chips(catalog, {})
    made: dict[str, Lines] = {}
    low, high = ERROR_SPREAD
    for what, leaf in ERRORS.items():
        fit = fits.get(what)
        if fit is None or "chip" not in fit.left_out:
            continue
        of_file = [next((f for f, c in plan.chips.items() if c == getattr(chips.find(s.group[0]), "id", "")), "") for s in fit.steps]
        for file in plan.engine_files:
            mine = np.array([f == file for f in of_file])
            errors, of = fit.left_out["chip"], "runs of chips left out of the fit"
            if mine.any():
                errors, of = fit.errors[mine], f"{mine.sum()} runs of this chip"
            value = float(np.percentile(np.abs(errors), 90))
            note = f"90th percentile over {of}"
            made.setdefault(file, {})[leaf] = line(f".{leaf}", Constant(value, low * value, high * value), "fit", note, SOURCE).lstrip('".')
    return made


def system_lines(fits: Mapping[str, SystemFit], plan: Plan, catalog: Catalog) -> dict[str, Lines]:
    """Lines of the constants files for the fitted leaves: of chips, of engines, and means where no engine is named."""
    made: dict[str, Lines] = {}
    file_of = {chip: file for file, chip in plan.chips.items()}
    chips = Chips(catalog, {})
    for leaf in plan.system:
        values = {who: c for (name, who), c in fits[leaf.what].values.items() if name == leaf.name}
        path = f"system.{leaf.name}"
        if leaf.per == "chip":
            for chip, c in values.items():
                file = file_of[getattr(chips.find(chip), "id", "")]
                made.setdefault(file, {})[path] = line(path, c, "fit", note_of(fits[leaf.what], leaf, chip), SOURCE)
                for other in (f for f, like in plan.alike.items() if like == file):
                    wide = wider(c, plan.procedure["substitute_interval"], False)
                    made.setdefault(other, {})[path] = line(path, wide, "estimate", f"no serving runs of this chip: as {file}", SOURCE)
            continue
        if leaf.per in ("engine", "release"):
            for engine, c in values.items():
                text = line(path, c, "fit", note_of(fits[leaf.what], leaf, engine), SOURCE)
                made.setdefault("_engines", {})[f"{engine}.{leaf.name}"] = text.replace(path, f"{engine}.{leaf.name}", 1)
        if leaf.alone or leaf.what in (LATENCY, OFFLINE):  # the latter of old software: no mean takes it up
            continue
        latest = [c for who, c in values.items() if leaf.per != "release" or who == base_of(who)]
        mean = pooled([{leaf.name: c} for c in latest])[leaf.name]
        note = LATEST if leaf.per in ("engine", "release") else note_of(fits[leaf.what], leaf, ALL)
        for file in plan.engine_files:
            made.setdefault(file, {})[path] = line(path, mean, "fit", note, SOURCE)
        if leaf.name in OF_THE_TRAFFIC:
            made.setdefault(IDEAL, {})[path] = line(path, mean, "fit", f"{note}; of the traffic, not of the chip", SOURCE)
    return made
