"""Which constants make the operator equations agree with the measured rows, and how well? Refit them, write them, or check them.

``calibrate()`` fits every part of the plan (``hw_catalog/constants/_fit.toml``) to the operator rows of a folder; ``write`` puts the
constants with intervals and residuals into the constants files, ``check`` compares those files with a new fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dse.calibrate.cross import cross_validation
from dse.calibrate.engine import error_lines, fit_system, system_lines
from dse.calibrate.files import differences, put_lines, rewrite
from dse.calibrate.fit import Fitted, Sample, is_far, run_joint
from dse.calibrate.newcomer import Curve, Newcomer, curves, newcomers, with_newcomers, write_newcomers
from dse.calibrate.plan import Fit, Plan, read_plan
from dse.catalog import Catalog, load_catalog
from dse.errors import InputError
from dse.paths import data_dir
from dse.units import to_si
from dse.validate.operators import Job
from dse.validate.resolve import Chips
from dse.validate.rows import every_row, excluded_by, read_folder, read_rules
from dse.validate.shapes import Unpredictable, case

__all__ = ["calibrate", "calibrate_new", "check", "cross_validate", "fit_all", "samples_of", "write", "write_newcomers", "write_system"]

SHAPE = {  # sizes by which rows are left out together
    "gemm": ("n", "k"), "attention_decode": ("batch", "context"), "attention_prefill": ("flop", "prompt"),
    "experts": ("experts", "width", "ep"), "elementwise": ("moved_byte",),
}  # fmt: skip
EXCHANGE_SHAPE = ("n", "size")


def samples_of(folder: Path, catalog: Catalog, plan: Plan) -> list[Sample]:
    """Operator rows of a folder that the plan can use: known chip, an equation, no flag, not excluded.

    Raises:
        InputError: the folder cannot be read.
    """
    tables, peaks = read_folder(folder)
    rules, chips = read_rules(), Chips(catalog, peaks)
    file_of = {chip: file for file, chip in plan.chips.items()}
    found = []
    for i, (file, row) in enumerate(every_row(tables)):
        on = chips.find(row.get("chip", "")) if row.get("level") == "op" and not row.get("flag") else None
        if on is None or on.id not in file_of or excluded_by(rules, file, row):
            continue
        try:
            described = case(row)
            measured = float(row["value"]) * to_si(1.0, row["unit"])
        except (Unpredictable, InputError, ValueError):
            continue
        if described.also or measured <= 0:
            continue
        names = SHAPE.get(described.equation, EXCHANGE_SHAPE)
        shape = tuple(described.sizes.get(n, 0.0) for n in names)
        seconds = described.work / measured if described.work else measured
        found.append(Sample(Job(i, described, on), file_of[on.id], seconds, shape))
    return found


def _members(fit: Fit, samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a fit: of each chip the first set of implementations that it has rows of."""
    far = fit.part == "scale_out"
    mine = [s for s in samples if (is_far(s.job) if far else s.job.case.constants == fit.part and not is_far(s.job))]
    if far:
        mine = [s for s in mine if s.job.case.equation in ("all_reduce", "expert_exchange")]
        mine = [s for s in mine if s.job.case.equation != "all_reduce" or s.job.case.sizes["inside"] == 1.0]
    chosen: list[Sample] = []
    for chip in sorted({s.chip for s in mine}):
        of_chip = [s for s in mine if s.chip == chip]
        sets = ([s for s in of_chip if s.job.case.variant in names] for names in fit.rows)
        chosen += next((found for found in sets if found), [])
    return chosen


def joints(samples: Sequence[Sample], plan: Plan) -> list[list[tuple[Fit, list[Sample]]]]:
    """The fits of the plan that have rows, those that are made in one go together."""
    kinds: dict[str, list[tuple[Fit, list[Sample]]]] = {}
    for fit in plan.fits:
        members = _members(fit, samples)
        if members:
            kinds.setdefault(plan.kind_of(fit), []).append((fit, members))
    return list(kinds.values())


def fit_all(samples: Sequence[Sample], plan: Plan, cross_validate: bool = True, parts: Sequence[str] | None = None) -> list[Fitted]:
    """Every fit of the plan that has rows, or of some parts (fitted with those of their kind), in the plan's order."""
    asked = [kind for kind in joints(samples, plan) if parts is None or any(fit.part in parts for fit, _ in kind)]
    made = {id(done.fit): done for kind in asked for done in run_joint(kind, plan, cross_validate)}
    return [made[id(fit)] for fit in plan.fits if id(fit) in made and (parts is None or fit.part in parts)]


def calibrate(folder: Path | None = None, cross_validate: bool = True, parts: Sequence[str] | None = None) -> list[Fitted]:
    """Fit the constants to the operator rows of a folder (the shipped measurements by default).

    Raises:
        InputError: the folder or the catalogue cannot be read, or no row is of use.
    """
    plan = read_plan()
    samples = samples_of(folder or data_dir("hw_catalog") / "measurements", load_catalog(), plan)
    if not samples:
        raise InputError(f"{folder}: folder — found no operator row of a chip of the plan, allowed {', '.join(plan.chips.values())}")
    return fit_all(samples, plan, cross_validate, parts)


def cross_validate(folder: Path | None = None, parts: Sequence[str] | None = None) -> dict[str, Any]:
    """Errors on shapes, chips, models and engines that a fit has not seen, and on a chip with few measured rows (minutes).

    Raises:
        InputError: the folder or the catalogue cannot be read, or no row is of use.
    """
    rows, plan, catalog = folder or data_dir("hw_catalog") / "measurements", read_plan(), load_catalog()
    samples = samples_of(rows, catalog, plan)
    chosen = [kind for kind in joints(samples, plan) if parts is None or any(fit.part in parts for fit, _ in kind)]
    return cross_validation(rows, catalog, plan, fit_all(samples, plan, True, parts), chosen)


def calibrate_new(folder: Path, catalog: Catalog) -> tuple[list[Fitted], Plan, list[Newcomer], dict[str, dict[str, Curve]]]:
    """Fit chips of a folder that the plan does not name, together with the shipped rows; empty if there is none.

    Returns: Fits, the plan with the new chips, these, and the error of each against how many of its rows are fitted.

    Raises:
        InputError: the folder cannot be read.
    """
    found = newcomers(folder, catalog, read_plan())
    if not found:
        return [], read_plan(), [], {}
    plan, files = with_newcomers(read_plan(), found), [new.file for new in found]
    own = [s for s in samples_of(folder, catalog, plan) if s.chip in files]
    every = [*own, *samples_of(data_dir("hw_catalog") / "measurements", catalog, read_plan())]
    chosen = [kind for kind in joints(every, plan) if any(s.chip in files for _, members in kind for s in members)]
    done = [fitted for kind in chosen for fitted in run_joint(kind, plan, False) if set(fitted.residuals) & set(files)]
    return done, plan, found, curves(chosen, plan, files)


def write(results: Sequence[Fitted], folder: Path | None = None) -> list[Path]:
    """Put fitted constants, substitutes and pools into the constants files of a catalogue folder; returns the files."""
    return rewrite(results, read_plan(), (folder or data_dir("hw_catalog")) / "constants")


def write_system(rows: Path | None = None, folder: Path | None = None) -> list[Path]:
    """Fit what chips and engines pay beside their kernels to aggregated runs, and put it into the constants files; returns the files.

    To be called after ``write``: the runs are predicted with the constants of the catalogue.
    """
    plan, catalog = read_plan(), load_catalog()
    fits = fit_system(rows or data_dir("hw_catalog") / "measurements", catalog, plan, ("chip",))
    made = system_lines(fits, plan, catalog)
    for file, lines in error_lines(fits, plan, catalog).items():
        made[file] |= lines
    return put_lines(made, (folder or data_dir("hw_catalog")) / "constants")


def check(folder: Path | None = None, parts: Sequence[str] | None = None) -> list[str]:
    """Differences between the committed constants and a new fit, as lines of text; empty if they agree."""
    plan = read_plan()
    return differences(calibrate(folder, False, parts), plan, data_dir("hw_catalog") / "constants")
