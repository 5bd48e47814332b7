"""Which deployment does a measured run describe? From the columns of a system row to model, layout, workload and serving mode.

The layout columns of published runs differ from ours in places; the rules that translate them stand here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dse.catalog import Catalog
from dse.errors import InputError
from dse.validate.engines import engine_of
from dse.validate.precision import spelled
from dse.validate.queues import requests_of
from dse.validate.settings import NONE, Settings, settings_of
from dse.validate.shapes import Unpredictable

Row = Mapping[str, str]

SHORT_CONTEXT = 1024.0  # tokens
LARGEST_BATCH = 2048.0  # requests in flight where a run queues everything
SERVING = {
    "aggregated": "aggregated", "closed loop concurrency": "aggregated", "serving": "aggregated", "disagg": "disaggregated",
    "offline max throughput": "aggregated", "static batch": "static", "static batch prefill": "prefill", "static batch decode": "static",
    "disaggregated decode": "decode",
    "disaggregated prefill": "prefill",
    "single-user decode": "decode",
    "published throughput": "decode",
}  # fmt: skip
CLAIM = "published throughput"  # of a whole system: of requests of a stated length, else decoding alone
WORKER = re.compile(r"(prefill|decode) (\d+) workers x TP(\d+) EP(\d+) dp_attention=(true|false) on (\d+) GPUs", re.IGNORECASE)


@dataclass(frozen=True)
class Cut:
    """A layout as plain numbers."""

    tp: float = 1.0
    pp: float = 1.0
    dp: float = 1.0
    ep: float = 1.0

    @property
    def chips(self) -> float:
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class Run:
    """One measured run. ``batch`` is None where it is what the memory holds; ``workers`` decode instances share the requests that
    ``suppliers`` prefill instances hand them."""

    chip: str
    model: str
    serving: str
    format: str | None
    isl: float
    osl: float
    batch: float | None
    cut: Cut | None
    chips: float
    prefill: Cut | None = None
    workers: float = 1.0
    suppliers: float = 0.0  # prefill instances, where they are counted
    engine: str = ""
    burst: bool = True  # False: of the median request, which arrived alone, and not after a wave of others
    whole: bool = False  # an open layout spans all chips (else the best one is replicated)
    queued: bool = False  # requests wait outside: every place of the instance is taken by one that decodes
    requests: float | None = None  # of the whole run, where it is known to end
    wide: bool = False  # an open layout may split the attention by requests and spread the experts
    settings: Settings = NONE  # of server and client, where a script that ran it states them


def squeeze(name: str) -> str:
    """A model's name without case, vendor prefix, punctuation and ``Instruct``.

    >>> squeeze("meta-llama/Llama-3.1-70B-Instruct")
    'llama3170b'
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-instruct$", "", name.lower().rsplit("/", 1)[-1]))


def shorten(name: str) -> str:
    """The squeezed name without a trailing ``A22B`` or ``671B``.

    >>> shorten("Qwen3-235B-A22B"), shorten("DeepSeek-R1 671B")
    ('qwen3235b', 'deepseekr1')
    """
    return squeeze(re.sub(r"[- ](a\d+b|671b)$", "", name.lower()))


class Models:
    """Models by the names that measurement files use."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self._by: list[dict[str, set[str]]] = [{}, {}]
        for identity, record in catalog.records["models"].items():
            for name in (identity, record.name, *record.aliases):
                self._by[0].setdefault(squeeze(name), set()).add(identity)
                self._by[1].setdefault(shorten(name), set()).add(identity)

    def find(self, name: str) -> str:
        """Id of the model.

        Raises: Unpredictable: no model, or more than one, has that name.
        """
        try:
            return self.catalog.resolve("models", name)
        except InputError:
            pass
        if "/" in name and name.rsplit("/", 1)[-1].lower() in {"r1"}:
            name = name.rsplit("/", 1)[0]
        for table, key in zip(self._by, (squeeze(name), shorten(name)), strict=True):
            found = table.get(key, set())
            if len(found) == 1:
                return next(iter(found))
        raise Unpredictable("unknown model")


def number(row: Row, column: str, default: float | None = None) -> float:
    """A column as a number.

    Raises: Unpredictable: it is blank or words, and there is no default.
    """
    text = (row.get(column) or "").strip()
    try:
        return float(text)
    except ValueError:
        if default is not None and not text:
            return default
        raise Unpredictable(f"{column} is {text!r}, not a number" if text else f"{column} is not stated") from None


def _degrees(tp: float, pp: float, ep: float, dp: float | None, attention_dp: bool, chips: float) -> Cut:
    """Degrees in our meaning: where ranks split the attention by request, the tp column is the world."""
    if attention_dp and (dp is None or tp * pp * dp > chips):
        return Cut(1.0, pp, tp, ep)
    return Cut(tp, pp, dp or 1.0, ep)


def layout_of(row: Row) -> Cut | None:
    """Layout of an aggregated run; None where the file leaves it open."""
    if not (row.get("tp") or "").strip():
        return None
    dp = number(row, "dp", 0.0) or None
    chips = number(row, "n_chips", 1.0)
    spread = (row.get("dp_attention") or "").lower() == "true"
    return _degrees(number(row, "tp"), number(row, "pp", 1.0), number(row, "ep", 1.0), dp, spread or (dp or 0) > 1, chips)


def workers_of(row: Row) -> dict[str, tuple[float, Cut]]:
    """Number and layout of the prefill and decode workers of a disaggregated run, from its note."""
    found = {}
    for phase, count, tp, ep, spread, gpus in WORKER.findall(row.get("note", "")):
        each = float(gpus) / float(count)
        wide = spread.lower() == "true"
        ranks = each if wide and float(ep) == 1 else float(ep)  # experts of a model that no rank can hold alone are spread
        cut = _degrees(each if wide else float(tp), 1.0, ranks, None, wide, each)
        found[phase.lower()] = (float(count), cut)
    if len(found) < 2:
        raise Unpredictable("layout of prefill and decode workers is not in the note")
    return found


def format_of(row: Row, model: str) -> str | None:
    """Weight format (and cache format) by name; None for the format of release."""
    text = (row.get("precision_weights") or "").strip().lower()
    found = spelled("weights", text)
    if found is None and not text.startswith("not stated"):
        raise Unpredictable(f"format {text!r} is unknown")
    name = found.format_for(model) if found else ""
    if not name:
        return None
    stored = spelled("cache", row.get("precision_kv"))
    return f"{name}/{stored.format}" if stored and stored.format and "/" not in name else name


def run_of(row: Row, chip: str, models: Models) -> Run:
    """The run that a system row belongs to.

    Raises: Unpredictable: something that the prediction needs is not stated, or is not modelled.
    """
    if (row.get("spec_decoding") or "none").lower().startswith("mtp"):
        raise Unpredictable("speculative decoding: tokens drafted and their acceptance are not stated")
    mode = row.get("mode", "")
    if mode.startswith("MLPerf"):
        return _mlperf(row, chip, models)
    if mode not in SERVING:
        raise Unpredictable(f"mode {mode!r}: batch or layout is not stated")
    model = models.find(row.get("model", ""))
    text = row.get("batch_or_concurrency", "")
    phrase = "max" in text or "queued" in text or "saturated" in text
    alone, claim = mode == "single-user decode", mode == CLAIM
    batch = None if phrase else float(middle(text) or 1.0) if alone else _users(text) if claim else number(row, "batch_or_concurrency")
    lengths = STATED.search(row.get("note", "")) if claim else None
    serving = "aggregated" if lengths else SERVING[mode]
    isl, osl = number(row, "isl", _context(row) if alone or claim else None), max(number(row, "osl", 1.0), 1.0)
    if lengths:
        isl, osl = float(lengths[1]), float(lengths[2])
    both = workers_of(row) if serving == "disaggregated" else {}
    count, cut = both["decode"] if both else (1.0, layout_of(row))
    engine, said = engine_of(row.get("software", "")), settings_of(row)
    return Run(
        chip=chip,
        model=model,
        serving=serving,
        format=format_of(row, model),
        isl=said.length_share * isl,
        osl=max(said.length_share * osl, 1.0),
        batch=batch,
        cut=cut,
        chips=number(row, "n_chips", 1.0),
        prefill=both["prefill"][1] if both else None,
        workers=count,
        suppliers=both["prefill"][0] if both else 0.0,
        engine=engine,
        burst=not row.get("metric", "").endswith("_median"),
        whole=alone or claim,
        queued=(phrase or claim) and serving == "aggregated",
        requests=requests_of(row, engine, isl, osl) if phrase else None,
        settings=said,
    )


def _context(row: Row) -> float:
    """Context of a single-user figure, from the note; a short chat where it is not stated (at one user it hardly matters)."""
    found = re.search(r"(\d+) (?:context|ctx)", row.get("note", ""))
    return float(found[1]) if found else SHORT_CONTEXT


STATED = re.compile(r"(\d+) in / (\d+) out")


def _users(text: str) -> float | None:
    """Users of a published throughput; where they are not stated, as many as the memory holds."""
    found = re.search(r"\d+(?:\.\d+)?", text)
    return float(found[0]) if found else None


KILO = {"k": 1000.0, "": 1.0}
LENGTHS = re.compile(r"about ([\d.]+)(k?) in / ([\d.]+)(k?) out")
OUTPUT = re.compile(r"about (\d+) output tokens")


def _lengths(note: str) -> tuple[float, float]:
    """Mean input and output tokens of a data set, from the note; where only outputs are stated, prompts are as long."""
    both, one = LENGTHS.search(note), OUTPUT.search(note)
    if both:
        return float(both[1]) * KILO[both[2]], float(both[3]) * KILO[both[4]]
    if one:
        return float(one[1]), float(one[1])
    raise Unpredictable("mean lengths of the data set are not stated")


def _mlperf(row: Row, chip: str, models: Models) -> Run:
    """A submission: the layout is the best on its chips, the batch what the memory holds, the lengths those of the data set."""
    model = models.find(row.get("model", ""))
    form, chips, engine = format_of(row, model), number(row, "n_chips", 1.0), engine_of(row.get("software", ""))
    latent = any(float(g.attention.latent) > 0 for g in models.catalog.models[model].groups)
    run = Run(chip, model, "aggregated", form, *_lengths(row.get("note", "")), batch=None, cut=None, chips=chips, engine=engine)
    return replace(run, queued=True, wide=latent, settings=settings_of(row))


RANGE = re.compile(r"\d+(?:\.\d+)?")


def middle(text: str) -> str:
    """The number in a cell, the middle of a range, or blank for words and bounds.

    >>> middle("15000-17000"), middle(">1000"), middle("300")
    ('16000.0', '', '300.0')
    """
    found = [float(x) for x in RANGE.findall(text)]
    plain = bool(re.fullmatch(r"[\d.\s-]+", text.strip())) and 0 < len(found) <= 2
    return str(sum(found) / len(found)) if plain else ""


def narrow(row: Row) -> dict[str, str]:
    """A row of the wide table of special chips in the form of the other tables: speed of one user, else throughput of the system."""
    user, system = middle(row.get("tok_s_per_user", "")), middle(row.get("tok_s_system", ""))
    chips = RANGE.search(row.get("chips", ""))
    packages = re.search(r"\((\d+) pkg\)", row.get("chips", ""))
    return {
        **row,
        "level": "system",
        "chip": row.get("hardware", ""),
        "batch_or_concurrency": middle(row.get("batch_or_users", "")) if user else row.get("batch_or_users", ""),
        "n_chips": packages[1] if packages else chips[0] if chips else "",
        "precision_weights": row.get("precision", ""),
        "mode": "single-user decode" if user else CLAIM,
        "metric": "output_speed_per_user" if user else "output_throughput_total",
        "value": user or system,
        "unit": "tok/s",
        "note": row.get("workload", ""),
        "spec_decoding": "mtp" if "spec decod" in row.get("workload", "").lower() else "none",
    }
