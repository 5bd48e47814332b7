"""How much of the benchmarked kernel floors does an engine pay on each chip? One number a chip, from aggregated serving runs.

System constants stay near physical priors because few models on few chips cannot separate them: ten free constants win two points in
fit and lose three to five on an unseen chip. The one that is fitted is ``system.kernel_floor``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from dse.calibrate.files import Lines, line
from dse.calibrate.fit import Constant
from dse.calibrate.plan import Plan
from dse.catalog import Catalog
from dse.validate.resolve import Chips
from dse.validate.rows import every_row, excluded_by, read_folder, read_rules
from dse.validate.runs import Models, Run, run_of
from dse.validate.shapes import Unpredictable
from dse.validate.systems import Evaluator

METRICS = ("tpot", "tpot_mean")
LEAF = "system.kernel_floor"
SOURCE = "dse-system-fit"


@dataclass(frozen=True)
class Step:
    """A measured time per output token of an aggregated run, and the group (model, engine, format) that it is weighted by."""

    run: Run
    seconds: float
    group: tuple[str, str, str]


@dataclass(frozen=True)
class Floor:
    """Fitted ``system.kernel_floor`` of a chip, and the errors of the time per token before and after."""

    value: float
    n: int
    median_before: float
    median: float
    p90: float


def steps_of(folder: Path, catalog: Catalog) -> dict[str, list[Step]]:
    """Steps of aggregated runs by chip name: no flag, not excluded, no speculative decoding."""
    tables, _ = read_folder(folder)
    models, rules = Models(catalog), read_rules()
    found: dict[str, list[Step]] = defaultdict(list)
    for file, row in every_row(tables):
        if row.get("mode") != "aggregated" or row.get("metric") not in METRICS or row.get("flag") or excluded_by(rules, file, row):
            continue
        try:
            run = run_of(row, row["chip"], models)
        except Unpredictable:
            continue
        engine = row["software"].split(" ")[0]
        found[row["chip"]].append(Step(run, float(row["value"]) / 1000.0, (row["model"], engine, row["precision_weights"])))
    return found


def log_errors(steps: Sequence[Step], catalog: Catalog, floor: float | None = None) -> np.ndarray:
    """log(predicted / measured) of the time per token, with another ``kernel_floor`` where one is given."""
    chips = Chips(catalog, {})
    on = chips.find(steps[0].run.chip)
    if on is None:
        return np.array([])
    if floor is not None:
        kernels = on.chip.kernels
        system = replace(kernels.system, kernel_floor=floor)
        chips = Chips(catalog, {}, {steps[0].run.chip: replace(on, chip=replace(on.chip, kernels=replace(kernels, system=system)))})
    evaluator = Evaluator(chips, catalog)
    return np.log([float(evaluator.metrics(s.run, s.run.serving).tpot_s) / s.seconds for s in steps])


def fit_floor(steps: Sequence[Step], catalog: Catalog, plan: Plan, bounds: tuple[float, float]) -> Floor:
    """The share of kernel floors with the least soft-L1 loss; each (model, engine, format) group counts with the root of its size."""
    sizes = Counter(s.group for s in steps)
    weights = np.array([sizes[s.group] ** -0.5 for s in steps])
    scale = plan.procedure["loss_scale"]

    def loss(floor: float) -> float:
        return float(np.sum(weights * np.hypot(1.0, log_errors(steps, catalog, floor) / scale)))

    value = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": plan.procedure["floor_step"]}).x)
    before, after = (np.abs(np.expm1(log_errors(steps, catalog, f))) for f in (None, value))
    return Floor(value, len(steps), float(np.median(before)), float(np.median(after)), float(np.percentile(after, 90)))


def fit_floors(folder: Path, catalog: Catalog, plan: Plan) -> Mapping[str, Floor]:
    """Fitted shares by constants file, for the chips of the plan that have aggregated runs."""
    bounds = (plan.procedure["floor_least"], plan.procedure["floor_most"])
    file_of = {chip: file for file, chip in plan.chips.items()}
    made = {}
    for name, steps in steps_of(folder, catalog).items():
        on = Chips(catalog, {}).find(name)
        if on is not None and on.id in file_of and len(steps) >= plan.procedure["floor_rows"]:
            made[file_of[on.id]] = fit_floor(steps, catalog, plan, bounds)
    return made


def floor_lines(floors: Mapping[str, Floor], plan: Plan) -> dict[str, Lines]:
    """Lines of the constants files for fitted shares of the kernel floors."""
    spread = plan.procedure["floor_spread"]
    made = {}
    for file, f in floors.items():
        note = f"time per output token of {f.n} aggregated runs: median error {100 * f.median:.1f} %, p90 {100 * f.p90:.0f} %"
        made[file] = {LEAF: line(LEAF, Constant(f.value, f.value / spread, f.value * spread), "fit", note, SOURCE)}
    return made
