"""How close, by kind of measurement, beside what was asked? And is the order of layouts and of chips right? Plain data for the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from dse.validate.engines import VERSION, base_of, engine_of
from dse.validate.table import Outcome

APART = ("nvidia-l40s",)  # stands apart in the means: its host's PCIe and its fallback kernels are no properties of the chip
LATENT_APART = (*APART, "nvidia-a100-80gb-sxm", "nvidia-a100-40gb-pcie")
AMD = "amd-"
MOST_WORST = 25


@dataclass(frozen=True)
class Kind:
    """Rows that belong together, and the errors asked of them (median and 90th percentile; None where only one is asked)."""

    name: str
    asked: tuple[float, float | None]
    takes: Callable[[Outcome], bool]
    by_group: bool = True  # unweighted mean over groups of chip and format; else over all rows
    axis: str = ""  # column of rows that a residual plot is drawn against


def _op(names: Sequence[str], apart: Sequence[str] = APART, amd: bool | None = None) -> Callable[[Outcome], bool]:
    def takes(o: Outcome) -> bool:
        return o.op in names and o.chip not in apart and (amd is None or o.chip.startswith(AMD) == amd)

    return takes


def _runs(modes: Sequence[str], metrics: Sequence[str]) -> Callable[[Outcome], bool]:
    def takes(o: Outcome) -> bool:
        mode = o.row.get("mode", "")
        return any(mode.startswith(m) for m in modes) and o.metric in metrics and not (o.chip in APART and mode.startswith("offline"))

    return takes


def _exchange(o: Outcome) -> bool:
    return o.level == "op" and o.op.startswith("ep_")


def _static(o: Outcome) -> bool:
    """Whole static batches; the figures of prefill and decoding alone (PaLM) and of first tokens are other metrics."""
    return o.row.get("mode", "") == "static batch" and o.metric in ("e2e_latency", "output_throughput_per_chip", *TOTALS)


TOTALS = ("output_throughput_total",)
KINDS = (
    Kind("GEMM, NVIDIA", (0.04, 0.12), _op(["gemm"], amd=False), axis="m"),
    Kind("GEMM, MI355X", (0.08, 0.25), _op(["gemm"], amd=True), axis="m"),
    Kind("decode attention", (0.05, 0.15), _op(["attention_decode"]), axis="batch"),
    Kind("prefill attention", (0.035, 0.09), _op(["attention_prefill_causal"]), axis="seq_q"),
    Kind("MLA decode", (0.06, 0.18), _op(["mla_decode_absorbed"], LATENT_APART), axis="batch"),
    Kind("MLA prefill", (0.03, 0.10), _op(["mla_prefill_causal"]), axis="seq_q"),
    Kind("MoE feed-forward", (0.065, 0.20), _op(["moe_ffn_fused"]), axis="tokens"),
    Kind("all-reduce", (0.037, 0.12), _op(["all_reduce"]), axis="msg_bytes"),
    Kind("other collectives", (0.06, 0.18), _op(["all_gather", "reduce_scatter", "alltoall"]), axis="msg_bytes"),
    Kind("expert all-to-all", (0.04, 0.12), _exchange, axis="tokens_per_rank"),
    Kind("TPOT, aggregated", (0.05, 0.15), _runs(["aggregated"], ["tpot", "tpot_mean"]), False, "batch_or_concurrency"),
    Kind("TTFT, aggregated", (0.20, 0.50), _runs(["aggregated"], ["ttft", "ttft_mean", "ttft_median"]), False, "batch_or_concurrency"),
    Kind("throughput per chip", (0.05, 0.18), _runs(["aggregated"], ["output_throughput_per_chip"]), False, "batch_or_concurrency"),
    Kind("TPOT, disaggregated", (0.12, 0.40), _runs(["disagg"], ["tpot_mean"]), False, "batch_or_concurrency"),
    Kind("offline throughput", (0.09, 0.30), _runs(["offline"], TOTALS), False, "isl"),
    Kind("MLPerf offline", (0.12, None), _runs(["MLPerf Offline"], ["mlperf_tokens_per_s_total"]), False),
    Kind("static batch", (0.10, None), _static, False, "batch_or_concurrency"),
)


def members(kind: Kind, done: Iterable[Outcome]) -> list[Outcome]:
    """Compared rows of a kind, excluded ones among them."""
    return [o for o in done if o.compared and kind.takes(o)]


def _figures(kind: Kind, rows: Sequence[Outcome]) -> tuple[float, float, int]:
    """Median, 90th percentile and number of groups."""
    cells: dict[Hashable, list[float]] = defaultdict(list)
    for o in rows:
        cells[(o.chip, o.format) if kind.by_group else ""].append(abs(o.error))
    medians = [float(np.median(c)) for c in cells.values()]
    tails = [float(np.percentile(c, 90)) for c in cells.values()]
    return float(np.mean(medians)), float(np.mean(tails)), len(cells)


def reached(done: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For each kind the errors beside what was asked, with and without the excluded rows."""
    made = []
    for kind in KINDS:
        every = members(kind, done)
        kept = [o for o in every if not o.excluded_by]
        if not kept:
            continue
        median, tail, groups = _figures(kind, kept)
        entry = {"kind": kind.name, "n": len(kept), "groups": groups, "median": median, "p90": tail}
        entry |= {"asked_median": kind.asked[0], "asked_p90": kind.asked[1], "bias": float(np.median([o.error for o in kept]))}
        entry["with_excluded"] = _figures(kind, every)[0] if len(every) > len(kept) else None
        made.append(entry)
    return made


CONVENTIONS = (
    "Queued runs of TensorRT-LLM (offline) book the cache of a whole request, isl + osl, when it starts: its default policy lets none be "
    "evicted. Other engines, and runs that name none, book isl + 0.55 osl; with that rule for all the error of offline throughput was 14 % "
    "(median) and 41 % (90th percentile) on constants of an earlier fit.",
    "Serving runs are predicted with the operator constants of their chip; a chip left out keeps these, and loses its system constants.",
)


# --- order -------------------------------------------------------------------------------------------------------------------

CASE = ("model", "isl", "osl", "batch_or_concurrency")
LAYOUT = ("tp", "pp", "ep", "dp_attention", "n_chips")


def _case(o: Outcome, *names: str) -> tuple[str, ...]:
    return tuple(o.row.get(n, "") for n in names)


def _tau(cells: Iterable[Sequence[Outcome]]) -> tuple[float, int]:
    """Mean tau over cells, and how many there are."""
    found = []
    for rows in cells:
        tau = kendalltau([o.predicted for o in rows], [o.measured for o in rows]).statistic if len(rows) > 1 else float("nan")
        if not np.isnan(tau):
            found.append(float(tau))
    return (float(np.mean(found)) if found else float("nan")), len(found)


def _cells(rows: Iterable[Outcome], key: Callable[[Outcome], Hashable]) -> list[list[Outcome]]:
    cells: dict[Hashable, list[Outcome]] = defaultdict(list)
    for o in rows:
        cells[key(o)].append(o)
    return list(cells.values())


def _pairs(rows: Iterable[Outcome], least: float = 0.0) -> tuple[float, int]:
    """(Concordant - discordant) / all over pairs of chips at one model, load, request and number of chips, measured further apart than
    ``least`` (relative)."""
    agree = []
    for cell in _cells(rows, lambda o: _case(o, *CASE, "n_chips")):
        for a, b in combinations(cell, 2):
            if a.chip != b.chip and abs(np.log(a.measured / b.measured)) > least:  # type: ignore[operator]
                agree.append(np.sign((a.predicted - b.predicted) * (a.measured - b.measured)))  # type: ignore[operator]
    return (float(np.mean(agree)) if agree else float("nan")), len(agree)


def order(done: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Kendall tau of the order of layouts, loads and chips."""
    steps = [o for o in members(KINDS[10], done) if not o.excluded_by]
    rates = [o for o in members(KINDS[12], done) if not o.excluded_by]
    same = ("software", "precision_weights")
    degrees = _tau(_cells(steps, lambda o: (o.chip, *_case(o, *CASE, *same, "pp", "dp", "dp_attention"))))
    loads = _tau(_cells(rates, lambda o: (o.chip, *_case(o, "model", "isl", "osl", *same))))
    noise = _scatter(_cells(steps, lambda o: (*_run(o), _version(o))))["p90"] or 0.0
    table = (
        ("degrees of tensor parallelism by TPOT", *degrees, 0.97, "groups"),
        ("throughput per chip over layouts and concurrency", *loads, 0.95, "groups"),
        ("pairs of chips by TPOT", *_pairs(steps), 0.94, "pairs"),
        (f"those further apart than repeated runs ({100 * noise:.1f} %)", *_pairs(steps, noise), 0.94, "pairs"),
    )
    return [{"order": name, "tau": tau, "n": n, "of": of, "asked": asked} for name, tau, n, asked, of in table]


# --- what no model can know --------------------------------------------------------------------------------------------------


def _run(o: Outcome) -> tuple[str, ...]:
    """What was run, whatever the version: spellings of one 4-bit format are one."""
    form = "4 bit" if "fp4" in o.format else o.format
    return (o.chip, base_of(engine_of(o.row.get("software", ""))), form, *_case(o, *CASE, *LAYOUT))


def _version(o: Outcome) -> str:
    """Version that a software column names, however it is written; two runs that name none count as different ones."""
    found = VERSION.search(o.row.get("software", ""))
    return found[0] if found else o.id


def _scatter(cells: Iterable[Sequence[Outcome]]) -> dict[str, Any]:
    """Median relative distance of runs from the middle of their cell."""
    far = []
    for rows in cells:
        values = np.array([o.measured for o in rows], dtype=float)
        if len(values) > 1:
            far += list(np.abs(values / np.median(values) - 1.0))
    return {"n": len(far), "median": float(np.median(far)) if far else None, "p90": float(np.percentile(far, 90)) if far else None}


def not_the_models(done: Sequence[Outcome]) -> list[dict[str, Any]]:
    """How far measurements of one and the same thing lie apart, and what rows with an unstated format add."""
    steps = [o for o in members(KINDS[10], done) if not o.excluded_by]
    exact = _scatter(_cells(steps, lambda o: (*_run(o), _version(o))))
    engine = _scatter(_cells(steps, _run))
    unstated = [abs(o.error) for o in steps if "not stated" in o.row.get("precision_weights", "")]
    stated = [abs(o.error) for o in steps if "not stated" not in o.row.get("precision_weights", "")]
    made = [
        {"what": "repeated runs of the same software, layout and load: distance from their middle", **exact},
        {"what": "the same run on several versions of one engine: distance from their middle", **engine},
    ]
    for what, errors in (("error of rows whose format is not stated", unstated), ("error of rows whose format is stated", stated)):
        if errors:
            made.append({"what": what, "n": len(errors), "median": float(np.median(errors)), "p90": float(np.percentile(errors, 90))})
    return made


def worst(done: Sequence[Outcome], most: int = MOST_WORST) -> list[Outcome]:
    """The compared rows with the largest factor between prediction and measurement, one a run or shape."""
    rows = sorted((o for o in done if o.compared and not o.excluded_by), key=_factor, reverse=True)
    kept: dict[Hashable, Outcome] = {}
    for o in rows:
        kept.setdefault((o.file, o.row.get("config_id") or o.id), o)
        if len(kept) == most:
            break
    return list(kept.values())


def _factor(o: Outcome) -> float:
    ratio = max(o.predicted or 0.0, 1e-30) / (o.measured or 1.0)
    return max(ratio, 1.0 / ratio)
