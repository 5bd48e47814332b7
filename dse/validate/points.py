"""Where do measured systems stand in the plane of a study: speed for one user against throughput of a chip?

Serving runs of the committed measurements whose model and request shape are those of the study, as plain dictionaries for a report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dse.catalog import Catalog
from dse.errors import InputError
from dse.paths import data_dir
from dse.validate.resolve import Chips
from dse.validate.rows import Row, every_row, excluded_by, read_folder, read_rules
from dse.validate.runs import Cut, Models, layout_of, number
from dse.validate.shapes import Unpredictable

SAME_LENGTH = 0.1  # of the tokens of a request: below it a run answers the question of a workload
MOST = 8  # points kept for a chip, a model and a workload
MS_PER_S = 1000.0
SPEEDS = ("tpot_mean", "tpot", "tpot_median")  # the first that a run reports counts
FIRST = ("ttft_mean", "ttft", "ttft_median")
RATE = "output_throughput_per_chip"

Place = tuple[str, str, str]  # chip, model, workload


def _alike(a: str, b: str, catalog: Catalog) -> bool:
    """Whether two models hold the same layers; the context that a release allows does not count."""
    return a == b or _layers(catalog, a) == _layers(catalog, b)


def _layers(catalog: Catalog, model: str) -> Any:
    m = catalog.models[model]
    return m.d_model, m.vocab, m.params, m.groups


def _answers(row: Row, models: Sequence[str], workloads: Sequence[str], catalog: Catalog, names: Models) -> list[tuple[str, str]]:
    """Models and workloads of the study that a run is a measurement of."""
    try:
        ran, isl, osl = names.find(row.get("model", "")), number(row, "isl"), number(row, "osl")
    except Unpredictable:
        return []
    found = []
    for workload in workloads:
        asked = catalog.workloads[workload]
        wanted = ((isl, asked.input_tokens), (osl, asked.output_tokens))
        if all(abs(has - float(want)) <= SAME_LENGTH * float(want) for has, want in wanted):
            found += [(model, workload) for model in models if _alike(ran, model, catalog)]
    return found


def _runs(folder: Path) -> Iterable[tuple[str, list[Row]]]:
    """Aggregated runs without flag, exclusion or speculation: the rows of each run together, with their table."""
    tables, _ = read_folder(folder)
    rules = read_rules()
    runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for file, row in every_row(tables):
        plain = row.get("mode") == "aggregated" and not row.get("flag") and row.get("spec_decoding", "none") in ("none", "")
        if row.get("level") == "system" and plain and not excluded_by(rules, file, row):
            runs[file, row.get("config_id") or row["id"]].append(row)
    return [(file, rows) for (file, _), rows in runs.items()]


def _first(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    return next((values[n] for n in names if n in values), None)


def _speeds(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Tokens a second of one user and of one chip: reported, or of a closed loop at the reported latencies."""
    try:
        values = {r["metric"]: float(r["value"]) for r in rows}
        tpot, ttft, rate = _first(values, SPEEDS), _first(values, FIRST), values.get(RATE)
        if not tpot:
            return None
        if rate is None:
            if ttft is None:
                return None
            head = rows[0]
            users, chips, osl = (number(head, c) for c in ("batch_or_concurrency", "n_chips", "osl"))
            rate = users * osl / chips * MS_PER_S / (ttft + (osl - 1.0) * tpot)
    except (ValueError, Unpredictable):
        return None
    return MS_PER_S / tpot, rate


def _label(row: Row, chip: str) -> str:
    """Layout, format, load and software of a run in words."""
    cut = layout_of(row) or Cut()
    degrees = [f"{name}{value:g}" for name, value in (("TP", cut.tp), ("PP", cut.pp), ("DP", cut.dp), ("EP", cut.ep)) if value > 1]
    software = row.get("software", "").split(" (")[0]
    parts = [" ".join(degrees) or "one chip", row.get("precision_weights", ""), f"{row.get('batch_or_concurrency')} users", software]
    return f"{chip}: " + ", ".join(p for p in parts if p)


def _best(points: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Points that no other one beats in both speeds, thinned evenly along the front to ``most``."""
    front: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (-p["output_token_per_s_per_chip"], -p["interactivity_token_per_s"], p["label"])):
        if not front or point["interactivity_token_per_s"] > front[-1]["interactivity_token_per_s"]:
            front.append(point)
    last = len(front) - 1
    return [front[i] for i in sorted({round(float(i)) for i in np.linspace(0, last, min(most, len(front)))})]


def measured_points(
    models: Sequence[str], workloads: Sequence[str], catalog: Catalog, folder: Path | None = None, most: int = MOST
) -> list[dict[str, Any]]:
    """Measured serving runs of a study's models and workloads: the best few of each chip.

    A run counts if its model has the same layers and its request the same lengths within a tenth. Throughput is what the run
    reports, or that of a closed loop: ``users x output tokens / (chips x (TTFT + (output tokens - 1) x TPOT))``.

    Args:
        models: Ids of models.
        workloads: Ids of workloads.
        catalog: The catalogue.
        folder: CSV files in the form of ``hw_catalog/measurements``, which is the default.
        most: Points kept for each chip, model and workload.

    Returns:
        Dictionaries with ``chip, model, workload, interactivity_token_per_s, output_token_per_s_per_chip, label, source``.

    Raises:
        InputError: an id is unknown, or the folder cannot be read.
    """
    problems = [str(e) for kind, ids in (("models", models), ("workloads", workloads)) for e in _unknown(kind, ids, catalog)]
    if problems:
        raise InputError(problems)
    names, chips = Models(catalog), Chips(catalog, {})
    found: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    for _, rows in _runs(folder or data_dir("hw_catalog") / "measurements"):
        answers = _answers(rows[0], models, workloads, catalog, names)
        on = chips.find(rows[0].get("chip", "")) if answers else None
        speeds = _speeds(rows) if on else None
        if on is None or speeds is None:
            continue
        label, source = _label(rows[0], catalog.records["chips"][on.id].name), rows[0].get("source", "")
        for model, workload in answers:
            point: dict[str, Any] = {"chip": on.id, "model": model, "workload": workload}
            point |= {"interactivity_token_per_s": speeds[0], "output_token_per_s_per_chip": speeds[1], "label": label, "source": source}
            found[on.id, model, workload].append(point)
    return [point for place in sorted(found) for point in _best(found[place], most)]


def _unknown(kind: str, ids: Sequence[str], catalog: Catalog) -> list[InputError]:
    problems = []
    for identity in ids:
        try:
            catalog.resolve(kind, identity)
        except InputError as problem:
            problems.append(problem)
    return problems
