"""Is a published speed of special silicon possible? Predicted, ideal, and a verdict in words for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dse.catalog import Catalog
from dse.evaluate import TIME_PARTS, ideal
from dse.validate.resolve import Chips
from dse.validate.runs import Models, run_of
from dse.validate.systems import Evaluator, metric_of, unit_of_row
from dse.validate.table import Outcome

TABLE = "published_special_chips"
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


def verdicts(done: Sequence[Outcome], catalog: Catalog) -> list[dict[str, Any]]:
    """Published rows of special chips with the calibrated and the ideal prediction."""
    chosen = [o for o in done if o.file == TABLE and o.predicted is not None and o.measured]
    names = {o.row["chip"] for o in chosen}
    plain = Chips(catalog, {})
    known = {n: replace(on, chip=ideal(on.chip)) for n in names if (on := plain.find(n)) is not None}
    models, best = Models(catalog), Evaluator(Chips(catalog, {}, known), catalog)
    made = []
    for o in chosen:
        run = replace(run_of(o.row, o.row["chip"], models), engine="")
        value = metric_of(o.metric, run, best) / unit_of_row(o.row)
        bound = TIME_PARTS[int(best.metrics(best.settled(run), run.serving).bound)]
        words = _verdict(float(o.measured or 0.0), float(o.predicted or 0.0), value, bound, o.unit.startswith("tok"))
        numbers = {"measured": o.measured, "predicted": o.predicted, "ideal": value}
        made.append({"chip": o.chip, "model": o.model, "metric": o.op, **numbers, "verdict": words})
    return made
