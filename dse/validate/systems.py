"""What does the model predict for whole systems? Runs through ``evaluate``, and the metric that each row reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dse.catalog import Catalog
from dse.equations.smooth import TINY
from dse.errors import InputError
from dse.formats import default_format
from dse.types import Chip, Format, Layout, Workload, named_format
from dse.units import to_si
from dse.validate.batch import Answer, Ask, answers
from dse.validate.engines import in_engine, read_engines
from dse.validate.operators import variant_of
from dse.validate.queues import waves
from dse.validate.resolve import Chips
from dse.validate.rows import Row
from dse.validate.runs import LARGEST_BATCH, Cut, Models, Run, run_of
from dse.validate.settings import Settings
from dse.validate.shapes import Unpredictable

GPU = "hbm_gpu"
PRICES = "owner-2026"  # no metric of a measurement depends on prices
ROUNDS = 8  # of the decoding batch that prefill keeps supplied, from the concurrency down: the sequence falls geometrically
DEGREES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def _layout(cut: Cut, batch: float, form: Format) -> Layout:
    return Layout(tp=cut.tp, pp=cut.pp, dp=cut.dp, ep=cut.ep, batch=batch, format=form)


Key = tuple[Run, str]  # a settled run and how it serves


class Evaluator:
    """Runs of one catalogue, each evaluated once; runs asked for together go through the model together."""

    def __init__(self, chips: Chips, catalog: Catalog, system: Callable[[str, str], Mapping[str, float]] | None = None):
        """``system`` gives leaves of ``types.System`` for a chip's name and an engine, in place of the committed ones."""
        self.chips, self.catalog, self.system = chips, catalog, system
        self._known: dict[Key, Answer] = {}
        self._settled: dict[Run, Run] = {}
        self._chips: dict[tuple[str, str, bool, Settings], Chip] = {}

    def _chip(self, run: Run) -> Chip:
        key = (run.chip, run.engine, run.burst, run.settings)
        if key not in self._chips:
            on = self.chips.find(run.chip)
            assert on is not None
            gpu = str(on.constants.meta.get("family", GPU)) == GPU  # engines are measured on GPUs
            leaves = self.system(run.chip, run.engine) if self.system else {}
            engine = run.engine if gpu else ""
            leaves = {**leaves, **run.settings.leaves} if engine else leaves
            kind = read_engines()[engine].all_reduce if engine else ""
            own = variant_of("all_reduce", kind, on.constants) if kind else None
            self._chips[key] = in_engine(on.chip, engine, leaves, run.burst, own)
        return self._chips[key]

    def _ask(self, run: Run, serving: str) -> Ask:
        chip = self._chip(run)
        assert run.cut is not None and run.batch is not None
        model = self.catalog.models[run.model]
        form = named_format(*run.format.split("/")) if run.format else default_format(chip, model.native)
        prefill = _layout(run.prefill, max(run.prefill.dp, 1.0), form) if run.prefill else None
        workload = Workload(input_tokens=run.isl, output_tokens=run.osl)
        layout = _layout(run.cut, run.batch / run.workers, form)
        return Ask(chip, model, self.catalog.prices[PRICES], workload, layout, prefill, serving)

    def metrics(self, run: Run, serving: str) -> Answer:
        """What the model says of a settled run."""
        self.evaluate([(run, serving)])
        return self._known[run, serving]

    def evaluate(self, keys: Iterable[Key]) -> None:
        """Evaluate settled runs together."""
        missing = [k for k in dict.fromkeys(keys) if k not in self._known]
        self._known.update(zip(missing, answers([self._ask(*k) for k in missing]), strict=True))

    def capacity(self, run: Run) -> float:
        """Requests whose cache fits into an instance, at most ``LARGEST_BATCH`` and at least one a rank."""
        assert run.cut is not None
        a = self.metrics(replace(run, batch=run.cut.dp), run.serving)
        most = min(LARGEST_BATCH, run.requests or LARGEST_BATCH)
        return float(np.clip(np.floor(a.room_byte / max(a.kv_byte, 1.0)) * run.cut.dp, run.cut.dp, most))

    def settle(self, runs: Iterable[Run]) -> None:
        """Fill in batch and layout of runs that leave them open, and evaluate them all."""
        tried = {run: _layouts(run) for run in dict.fromkeys(runs) if run not in self._settled}
        every = [one for options in tried.values() for one in options]
        self.evaluate((replace(r, batch=r.cut.dp), r.serving) for r in every if r.batch is None and r.cut)
        filled = {r: r if r.batch is not None else replace(r, batch=self.capacity(r)) for r in every}
        self.evaluate((r, r.serving) for r in filled.values())
        filled.update(self._supplied({k: r for k, r in filled.items() if r.suppliers}))
        self.evaluate((rest, rest.serving) for r in filled.values() if (rest := rest_of(r)))
        for run, options in tried.items():
            self._settled[run] = self._best([filled[o] for o in options])
        self.evaluate((r, "prefill") for r in (self._settled[run] for run in tried) if r.serving == "static")

    def _supplied(self, runs: Mapping[Run, Run]) -> dict[Run, Run]:
        """Disaggregated runs with the batch that decodes: what prefill keeps supplied, at most all users less those in prefill.

        In the steady state as many requests finish decoding as leave prefill, B / (n TPOT(B)), and by Little's law TTFT / (n TPOT) of
        them are on their way to their first token; the rest waits in front of the prefill.
        """
        most = {k: float(r.batch or 0.0) for k, r in runs.items()}
        fed = {k: self._prefill_of(r) for k, r in runs.items()}
        self.evaluate((f, "prefill") for f in fed.values())
        rate = {k: r.suppliers * float(fed[k].batch or 0.0) / self._known[fed[k], "prefill"].ttft_s for k, r in runs.items()}
        now = dict(runs)
        for _ in range(ROUNDS):
            said = {k: self._known[r, r.serving] for k, r in now.items()}
            long = {k: r.osl * said[k].tpot_s for k, r in now.items()}  # that a request decodes
            held = {k: min(rate[k] * long[k], most[k] * long[k] / (long[k] + said[k].ttft_s)) for k in now}
            now = {k: replace(r, batch=float(np.clip(held[k], min(r.workers, most[k]), most[k]))) for k, r in now.items()}
            self.evaluate((r, r.serving) for r in now.values())
        return now

    def _prefill_of(self, run: Run) -> Run:
        """One prefill instance of a disaggregated run at work on full chunks."""
        assert run.prefill is not None
        together = max(np.floor(float(self._chip(run).kernels.system.chunk_token) / run.isl), 1.0)
        return replace(run, cut=run.prefill, batch=float(together * run.prefill.dp), workers=1.0, suppliers=0.0)

    def settled(self, run: Run) -> Run:
        """The run with its batch and layout filled in where the file leaves them open."""
        self.settle([run])
        return self._settled[run]

    def _best(self, options: list[Run]) -> Run:
        def rank(run: Run) -> tuple[bool, float]:
            a = self.metrics(run, run.serving)
            return a.feasible, self.output(run, a, _latency(run, a, 0.0)) / a.chips

        return options[0] if len(options) == 1 else max(options, key=rank)

    def output(self, run: Run, m: Answer, latency: float) -> float:
        """Output tokens a second of an instance; where requests queue outside, its places are taken by requests that decode to the end."""
        assert run.cut is not None and run.batch is not None
        if run.serving == "decode":
            return m.output_token_per_s_per_chip * run.cut.chips
        if run.queued or run.serving == "disaggregated":
            return run.batch / max(m.tpot_s, TINY) * self.filled(run, m)
        return run.batch * run.osl / max(latency, TINY)

    def filled(self, run: Run, m: Answer) -> float:
        """Output of a run with a last wave that is not full, over that of one without end."""
        rest = rest_of(run)
        if rest is None or run.requests is None or run.batch is None:
            return 1.0
        full, left = waves(run.requests, run.batch)
        last = self.metrics(rest, rest.serving).tpot_s / max(m.tpot_s, TINY)
        return (full + left / run.batch) / (full + last)


def rest_of(run: Run) -> Run | None:
    """The last wave of a run that is not full; None where there is none, or where the run is not known to end."""
    if run.requests is None or run.batch is None or run.cut is None:
        return None
    left = waves(run.requests, run.batch)[1]
    return replace(run, batch=max(left, run.cut.dp)) if left else None


def _layouts(run: Run) -> list[Run]:
    """The run's layout, or those that it may have had."""
    if run.cut is not None:
        return [run]
    fits = [tp for tp in DEGREES if tp <= run.chips and not (run.whole and run.chips % tp)]
    cuts = [Cut(tp=tp, pp=run.chips / tp if run.whole else 1.0) for tp in fits]
    if run.wide:  # attention by requests, experts spread
        cuts += [Cut(dp=tp, ep=tp) for tp in fits if tp > 1]
    return [replace(run, cut=cut) for cut in cuts]


def _latency(run: Run, m: Answer, prefill_s: float) -> float:
    """Time of a whole request; a static batch waits for nothing but its own prefill."""
    if run.serving == "static":
        return prefill_s + run.osl * float(m.tpot_s)
    return float(m.ttft_s) + max(run.osl - 1.0, 0.0) * float(m.tpot_s)


def latency_of(run: Run, evaluator: Evaluator) -> float:
    """Time of a whole request of a run [s]."""
    run = evaluator.settled(run)
    prefill_s = evaluator.metrics(run, "prefill").ttft_s if run.serving == "static" else 0.0
    return _latency(run, evaluator.metrics(run, run.serving), prefill_s)


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
    output = evaluator.output(run, m, latency)
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


def unit_of_row(row: Mapping[str, str]) -> float:
    text = row.get("unit", "").replace("tok/", "token/").replace("/chip", "").replace("fraction", "1")
    return to_si(1.0, text)


def predict_systems(rows: Sequence[tuple[str, Row]], chips: Chips, catalog: Catalog) -> tuple[dict[int, float], dict[int, str]]:
    """Predictions of the system rows in their units, and the reason for each row without one, by index."""
    models, evaluator = Models(catalog), Evaluator(chips, catalog)
    runs: dict[int, Run] = {}
    reasons: dict[int, str] = {}
    for i, (_, row) in enumerate(rows):
        if row.get("level") == "op" or row.get("op"):
            continue
        if row.get("level") != "system":
            reasons[i] = "neither an operator nor a system row"
            continue
        try:
            if chips.find(row.get("chip", "")) is None:
                raise Unpredictable("unknown chip")
            runs[i] = run_of(row, row.get("chip", ""), models)
            unit_of_row(row)
        except (Unpredictable, InputError) as problem:
            reasons[i] = str(problem)
    evaluator.settle(runs.values())
    predicted: dict[int, float] = {}
    for i, run in runs.items():
        row = rows[i][1]
        try:
            predicted[i] = metric_of(row.get("metric", ""), run, evaluator) / unit_of_row(row)
        except Unpredictable as problem:
            reasons[i] = str(problem)
    return predicted, reasons
