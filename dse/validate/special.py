"""Is a published speed of special silicon possible? Predicted, ideal, and a verdict in words for each row."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from dse.catalog import Catalog
from dse.evaluate import TIME_PARTS, ideal
from dse.paths import data_dir
from dse.validate.resolve import Chips, Resolved
from dse.validate.runs import Models, run_of
from dse.validate.systems import Evaluator, metric_of, unit_of_row
from dse.validate.table import Outcome

TABLE = "published_special_chips"
REMARKS = "remarks.toml"
CLOSE = 0.25  # relative error within which a prediction agrees
LIMITS = {
    "compute": "the peak arithmetic rate", "weights": "the bandwidth of its weight store", "kv": "the bandwidth of its cache store",
    "collectives": "the bandwidth of its links", "overhead": "its fixed time per layer", "prefill": "its prefill rate",
}  # fmt: skip


def _verdict(measured: float, predicted: float, best: float, bound: str, faster_is_larger: bool) -> str:
    """In words: agrees, possible, or which limit it would break."""
    speed = measured / best if faster_is_larger else best / measured
    close = predicted / measured - 1.0
    if abs(close) <= CLOSE:
        return f"agrees: predicted within {100 * CLOSE:.0f} %"
    if speed > 1.0:
        return f"not possible as described: {speed:.1f} times what {LIMITS[bound]} allows"
    side = "slower" if (predicted < measured) == faster_is_larger else "faster"
    return f"possible: {100 * speed:.0f} % of the ideal speed; the model is {side} by {abs(100 * close):.0f} %"


def _layer_times(on: Resolved) -> dict[str, Resolved]:
    """The chip with the ends of the interval of its family's fixed time per layer, slow and fast; empty where it has none."""
    quantity = on.constants.values.get("system.layer_s")
    if quantity is None or not float(on.chip.kernels.system.layer_s) or quantity.low is None or quantity.high is None:
        return {}
    found = {}
    for end, value in (("slow", quantity.high), ("fast", quantity.low)):
        share = value / quantity.value
        system = replace(on.chip.kernels.system, layer_s=on.chip.kernels.system.layer_s * share)
        found[end] = replace(on, chip=replace(on.chip, kernels=replace(on.chip.kernels, system=system)))
    return found


@cache
def remarks() -> dict[str, str]:
    """What is known of rows that the model does not agree with, by row id, with the source."""
    with (data_dir("hw_catalog") / REMARKS).open("rb") as file:
        return {row: f"{entry['remark']} ({entry['source']})" for row, entry in tomllib.load(file).items()}


def verdicts(done: Sequence[Outcome], catalog: Catalog) -> list[dict[str, Any]]:
    """Published rows of special chips: predicted with the interval of the fixed time per layer, ideal, and what follows."""
    chosen = [o for o in done if o.file == TABLE and o.measured and not o.excluded_by]
    names = {o.row["chip"] for o in chosen if o.predicted is not None}
    plain = Chips(catalog, {})
    on = {n: found for n in names if (found := plain.find(n)) is not None}
    models, best = Models(catalog), Evaluator(Chips(catalog, {}, {n: replace(c, chip=ideal(c.chip)) for n, c in on.items()}), catalog)
    ends = {
        end: Evaluator(Chips(catalog, {}, {n: _layer_times(c).get(end, c) for n, c in on.items()}), catalog) for end in ("slow", "fast")
    }
    made = []
    for o in chosen:
        entry = {"chip": o.chip, "model": o.model, "metric": o.op, "kind": o.row.get("kind", ""), "measured": o.measured}
        if o.predicted is None:
            blank = dict.fromkeys(("predicted", "slow", "fast", "ideal"))
            made.append({**entry, **blank, "verdict": f"not predicted: {o.skipped_reason}"})
            continue
        run = run_of(o.row, o.row["chip"], models)
        slow, fast = (metric_of(o.metric, run, ends[e]) / unit_of_row(o.row) for e in ("slow", "fast"))
        run = replace(run, engine="")
        value = metric_of(o.metric, run, best) / unit_of_row(o.row)
        bound = TIME_PARTS[int(best.metrics(best.settled(run), run.serving).bound)]
        words = _verdict(float(o.measured or 0.0), float(o.predicted), value, bound, o.unit.startswith("tok"))
        inputs = 1.0 + run.isl / run.osl
        if run.queued and float(o.measured or 0.0) > value:
            share = float(o.measured or 0.0) / (value * inputs)
            words += f"; counted with the {run.isl:.0f} input tokens of each request it is {100 * share:.0f} % of the ideal speed"
        if o.id in remarks() and not words.startswith("agrees"):
            words += f"; {remarks()[o.id]}"
        made.append({**entry, "predicted": o.predicted, "slow": slow, "fast": fast, "ideal": value, "verdict": words})
    return made
