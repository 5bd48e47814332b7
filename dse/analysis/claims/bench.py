"""What do the checks of claims ask the model with? Scalar deployments by catalogue name, with ideal or calibrated constants."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dse.analysis.claims.families import FamilyCosts
from dse.catalog import Catalog
from dse.evaluate import Metrics, as_floats, evaluate
from dse.glossary import label
from dse.present import BOUNDS
from dse.study import Study
from dse.study.claims import ClaimRow
from dse.types import Chip, Deployment, Layout, Workload

MEMORY_BOUNDS = ("weights", "kv")
CALIBRATED, IDEAL = "calibrated", "ideal"
COOLED = 1e6  # a thermal limit that no step reaches
EXISTING = "existing"  # the family of chips that one can buy


@dataclass(frozen=True)
class Bench:
    """The catalogue, the study, and what the families' best designs cost."""

    catalog: Catalog
    study: Study
    families: FamilyCosts

    def chip(self, name: str | Chip, constants: str = CALIBRATED) -> Chip:
        """A chip of the catalogue as plain numbers."""
        chip = as_floats(self.catalog.chips[self.catalog.resolve("chips", name)]) if isinstance(name, str) else name
        return chip if constants == CALIBRATED else replace(chip, kernels=as_floats(self.catalog.constants[IDEAL]))

    def value(self, kind: str, name: str, field: str) -> float:
        """A number of a catalogue file, SI."""
        return self.catalog.records[kind][name].values[field].value

    def interval(self, kind: str, name: str, field: str) -> tuple[float, float]:
        """The 90 % interval of a number (the number twice where it has none)."""
        q = self.catalog.records[kind][name].values[field]
        return (q.value if q.low is None else q.low), (q.value if q.high is None else q.high)

    def run(
        self,
        chip: str | Chip,
        model: str,
        constants: str = CALIBRATED,
        isl: float = 1.0,
        osl: float = 1.0,
        workload: str | None = None,
        serving: str = "decode",
        prices: str = "owner-2026",
        **layout: Any,
    ) -> Metrics:
        """Metrics of one deployment (scalars)."""
        work = self.catalog.workloads[workload] if workload else Workload(input_tokens=isl, output_tokens=osl)
        degrees: dict[str, Any] = {k: v if k == "format" else float(v) for k, v in layout.items()}
        d = Deployment(
            chip=self.chip(chip, constants),
            model=self.catalog.models[self.catalog.resolve("models", model)],
            workload=work,
            layout=Layout(**degrees),
            prices=self.catalog.prices[prices],
            serving=serving,
        )
        return evaluate(as_floats(d))


Check = Callable[[Bench, ClaimRow], Any]


def no_memory_time(chip: Chip) -> Chip:
    """The same chip with memory and links that take no time, and cooling without limit: what is left is arithmetic."""
    cool = replace(no_link_time(chip), tdp_w=chip.tdp_w * COOLED)
    stores = {name: replace(getattr(chip, name), s_per_byte=0.0) for name in ("weight_store", "sram", "memory")}
    return replace(cool, **stores)


def no_link_time(chip: Chip) -> Chip:
    """The same chip with links, and exchanges, that take no time."""
    k = chip.kernels
    still: dict[str, Any] = {}
    for name in ("all_reduce", "all_gather", "dispatch", "combine", "scale_out", "point_to_point"):
        record = getattr(k, name)
        waits = {f: 0.0 for f in vars(record) if f.endswith("_s")}
        still[name] = replace(record, **waits)
    links = {name: replace(getattr(chip, name), s_per_byte=0.0) for name in ("scale_up", "scale_out")}
    return replace(chip, kernels=replace(k, **still), **links)


def bound(m: Metrics) -> str:
    """Name of the largest part of a decoding step."""
    return BOUNDS[int(m.bound)]


def largest_batch(fits: Callable[[float], bool], most: float = 2.0**20) -> float:
    """Largest whole batch for which ``fits`` holds, 0 if none does."""
    if not fits(1.0):
        return 0.0
    low, high = 1.0, 2.0
    while high < most and fits(high):
        low, high = high, 2.0 * high
    while high - low > 1.0:
        middle = (low + high) // 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def smallest_batch(reached: Callable[[float], bool], most: float = 2.0**20) -> float:
    """Smallest whole batch at which ``reached`` holds (it stays so from there on)."""
    return largest_batch(lambda b: not reached(b), most) + 1.0


def family_label(family: str) -> str:
    """Name of a family for people."""
    return "chips on the market" if family == EXISTING else label(family)


def numbers(table: Mapping[str, float]) -> str:
    """Cases as words: ``1.2 (a), 3.4 (b)``."""
    return ", ".join(f"{short(value)} ({name})" for name, value in table.items())


def short(value: float) -> str:
    """A number for prose: three digits, thousands with commas, small and huge ones with an exponent.

    >>> short(1234.5), short(0.0533), short(3.2e12), short(1.24e-5), short(0.0)
    ('1,230', '0.0533', '3.2e12', '1.24e-5', '0')
    """
    if value == 0 or value != value or value in (float("inf"), float("-inf")):
        return {0.0: "0", float("inf"): "none"}.get(value, "none")
    if 1e-3 <= abs(value) < 1e6:
        digits = f"{value:.3g}"
        return f"{float(digits):,.0f}" if abs(value) >= 1e3 else f"{float(digits):g}"
    return re.sub(r"e([+-])0*(\d+)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{value:.3g}")
