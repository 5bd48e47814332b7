"""What does the model predict for whole systems? Runs through ``evaluate``, and the metric that each row reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from dse.catalog import Catalog
from dse.equations.smooth import TINY
from dse.errors import InputError
from dse.evaluate import Metrics, evaluate
from dse.types import Deployment, Layout, Workload
from dse.units import to_si
from dse.validate.resolve import Chips
from dse.validate.rows import Row
from dse.validate.runs import LARGEST_BATCH, Cut, Models, Run, run_of
from dse.validate.shapes import Unpredictable

PRICES = "owner-2026"  # no metric of a measurement depends on prices
DEGREES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def _layout(cut: Cut, batch: float, form: str | None) -> Layout:
    return Layout(tp=cut.tp, pp=cut.pp, dp=cut.dp, ep=cut.ep, batch=batch, format=form)


class Evaluator:
    """Runs of one catalogue, each evaluated once."""

    def __init__(self, chips: Chips, catalog: Catalog):
        self.chips, self.catalog = chips, catalog
        self.metrics = cache(self._metrics)
        self.settled = cache(self._settled)

    def _metrics(self, run: Run, serving: str) -> Metrics:
        on = self.chips.find(run.chip)
        assert on is not None and run.cut is not None and run.batch is not None
        prefill = _layout(run.prefill, max(run.prefill.dp, 1.0), run.format) if run.prefill else None
        deployment = Deployment(
            chip=on.chip,
            model=self.catalog.models[run.model],
            workload=Workload(input_tokens=run.isl, output_tokens=run.osl),
            layout=_layout(run.cut, run.batch / run.workers, run.format),
            prefill_layout=prefill,
            prices=self.catalog.prices[PRICES],
            serving=serving,
        )
        return evaluate(deployment)

    def capacity(self, run: Run) -> float:
        """Requests whose cache fits into an instance, at most ``LARGEST_BATCH`` and at least one a rank."""
        assert run.cut is not None
        m = self.metrics(replace(run, batch=run.cut.dp), run.serving).memory_byte_per_chip
        room = float(m.capacity) - float(m.weights) - float(m.reserve) - float(m.activations)
        return float(np.clip(np.floor(room / max(float(m.kv), 1.0)) * run.cut.dp, run.cut.dp, LARGEST_BATCH))

    def _settled(self, run: Run) -> Run:
        """The run with its batch and layout filled in where the file leaves them open."""
        if run.cut is not None:
            return run if run.batch is not None else replace(run, batch=self.capacity(run))
        tried = []
        for tp in DEGREES:
            if tp <= run.chips and not (run.whole and run.chips % tp):
                one = replace(run, cut=Cut(tp=tp, pp=run.chips / tp if run.whole else 1.0))
                one = one if one.batch is not None else replace(one, batch=self.capacity(one))
                m = self.metrics(one, one.serving)
                tried.append((bool(m.feasible), float(m.output_token_per_s_per_chip), one))
        feasible = [t for t in tried if t[0]] or tried
        return max(feasible, key=lambda t: t[1])[2]


def _latency(run: Run, m: Metrics, prefill_s: float) -> float:
    """Time of a whole request; a static batch waits for nothing but its own prefill."""
    if run.serving == "static":
        return prefill_s + run.osl * float(m.tpot_s)
    return float(m.ttft_s) + max(run.osl - 1.0, 0.0) * float(m.tpot_s)


def metric_of(name: str, run: Run, evaluator: Evaluator) -> float:
    """The metric of a run, in SI.

    Raises: Unpredictable: the model has no such metric.
    """
    run = evaluator.settled(run)
    m = evaluator.metrics(run, run.serving)
    assert run.cut is not None and run.batch is not None
    static = run.serving == "static"
    prefill_s = float(evaluator.metrics(run, "prefill").ttft_s) if static else 0.0
    latency = _latency(run, m, prefill_s)
    output = float(m.output_token_per_s_per_chip) * run.cut.chips if run.serving == "decode" else run.batch * run.osl / max(latency, TINY)
    of_chips = run.cut.chips * run.workers
    spread = run.chips if run.serving == "disaggregated" else run.cut.chips
    if name.startswith("ttft"):
        return prefill_s if static else float(m.ttft_s)
    if name.startswith("tpot"):
        return float(m.tpot_s)
    if name.startswith("e2e_latency"):
        return latency
    table = {
        "output_throughput_per_chip": output / spread,
        "total_throughput_per_chip": output * (run.isl + run.osl) / run.osl / spread,
        "output_throughput_per_decode_chip": output / of_chips,
        "output_throughput_total": output / run.cut.chips * run.chips,
        "mlperf_tokens_per_s_per_chip": output / run.cut.chips,
        "mlperf_tokens_per_s_total": output / run.cut.chips * run.chips,
        "input_throughput_per_chip": run.batch * run.isl / max(float(m.ttft_s), TINY) / run.cut.chips,
        "output_speed_per_user": 1.0 / max(float(m.tpot_s), TINY),
        "phase_latency": float(m.ttft_s) if run.serving == "prefill" else run.osl * float(m.tpot_s),
        "mfu": float(m.mfu_prefill) if run.serving == "prefill" else float(m.mfu),
    }
    if name not in table:
        raise Unpredictable(f"metric {name!r} is not modelled")
    return table[name]


def _unit(row: Row) -> float:
    text = row.get("unit", "").replace("tok/", "token/").replace("/chip", "").replace("fraction", "1")
    return to_si(1.0, text)


def predict_systems(rows: Sequence[tuple[str, Row]], chips: Chips, catalog: Catalog) -> tuple[dict[int, float], dict[int, str]]:
    """Predictions of the system rows in their units, and the reason for each row without one, by index."""
    models, evaluator = Models(catalog), Evaluator(chips, catalog)
    predicted: dict[int, float] = {}
    reasons: dict[int, str] = {}
    for i, (_, row) in enumerate(rows):
        if row.get("level") == "op" or row.get("op"):
            continue
        if row.get("level") != "system":
            reasons[i] = "neither an operator nor a system row"
            continue
        chip = row.get("chip", "")
        try:
            if chips.find(chip) is None:
                raise Unpredictable("unknown chip")
            value: Any = metric_of(row.get("metric", ""), run_of(row, chip, models), evaluator)
            predicted[i] = value / _unit(row)
        except (Unpredictable, InputError) as problem:
            reasons[i] = str(problem)
    return predicted, reasons
