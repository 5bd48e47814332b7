"""Does his own text give the published table of "Inference economics of language models", from his assumptions alone?

His model, not ours: real counts of chips, four reductions in two directions or two in one, a launch for each product, the faster of
three protocols for each reduction, no calibrated efficiency. Assumptions and results stand in ``hw_catalog/rebuild/erdil.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.catalog import Catalog, Record
from dse.types import LLM
from dse.validate.silicon.table import Row, Table, counted, judged

Array = np.ndarray[Any, Any]
WITHIN = 0.10
PROTOCOLS = ("ll", "ll128", "simple")
STAGES = (1.0, 2.0, 4.0, 6.0)  # of a pipeline, with as many microbatches
PRODUCTS = 4  # of a layer, one after the other
DRAFTED = 5  # most tokens that one pass of the large model checks
PREFERENCE = 4  # exponent of speed over price
COUNTS, BATCHES, LARGEST_CHIPS, LARGEST_BATCH = 120, 200, 12, 18  # points of the grid, and powers of two up to which it goes
SAMPLES, SPAN = 1000, 2  # points of the front, over two decades of speed
MILLION = 1e6
SPECULATIVE = "gpt-4-erdil"


@dataclass(frozen=True)
class Shape:
    """What his model asks of a language model. ``up`` and ``down``: matrices into and out of the feed-forward width."""

    d_model: float
    d_ff: float
    layers: float
    heads: float
    kv_heads: float
    d_head: float
    experts: float
    active: float
    vocab: float
    up: float
    down: float
    weight_byte: float = 2.0
    cache_byte: float = 2.0

    @property
    def sparsity(self) -> float:
        return self.experts / self.active

    @property
    def columns(self) -> float:
        """Of queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.d_head

    def params(self, experts: float) -> float:
        """Weights with this many experts a layer, embedding and output head included."""
        attention = (self.columns + self.heads * self.d_head) * self.d_model
        return self.layers * (attention + experts * (self.up + self.down) * self.d_model * self.d_ff) + 2 * self.vocab * self.d_model


def shape_of(model: LLM, weight_byte: float) -> Shape:
    """The shape of a model of the catalogue whose layers are all alike."""
    (group,) = [g for g in model.groups if g.mixers]
    a, f = group.attention, group.ffn
    routed = float(f.experts or 0)
    return Shape(
        d_model=float(model.d_model),
        d_ff=float(f.expert_width if routed else f.width or 0),
        layers=float(group.mixers),
        heads=float(a.heads),
        kv_heads=float(a.kv_heads),
        d_head=float(a.out_rows / a.heads),
        experts=routed or 1.0,
        active=float(f.experts_per_token) if routed else 1.0,
        vocab=float(model.vocab),
        up=float(f.matrices) - 1,
        down=1.0,
        weight_byte=weight_byte,
    )


def reduction_s(ranks: Array, nodes: Array, byte: Array, chip: dict[str, float], v: dict[str, float], both_ways: float = 2.0) -> Array:
    """Time of one all-reduce (``both_ways`` 2) or of passing on (1): the fastest protocol; none for one rank."""
    share = both_ways / 2  # the bandwidth is stated for both directions of a reduction
    if chip["node"] == 1:
        found = both_ways * (ranks - 1) * v["hop.chain"] + share * (ranks - 1) * byte / (ranks * chip["outside"])
    else:
        inside = nodes * np.maximum(ranks / nodes - 1, 0) * byte / (ranks * chip["inside"])
        outside = (nodes - 1) * byte / (ranks * chip["outside"])
        found = np.full(np.shape(byte), np.inf)
        for p in PROTOCOLS:
            waits = both_ways * ((ranks / nodes - 1) * v[f"{p}.inside"] + v[f"{p}.outside"] * np.log2(nodes)) + v[f"{p}.base"]
            found = np.minimum(found, waits + share * (inside + outside) / v[f"{p}.share"])
    return np.where(ranks <= 1, 0.0, found)


def product_byte(rows: float, columns: float, tokens: Array, m: Shape, shards: Array) -> Array:
    """Traffic of a product: weights once, inputs by every shard, outputs once."""
    return rows * columns * m.weight_byte + (rows * shards + columns) * tokens * m.cache_byte


def memory_byte(m: Shape, batch: Array, context: float, tokens: float, shards: Array) -> Array:
    """Traffic of one pass over all layers."""
    many = batch * tokens
    hit = 1 - (1 - 1 / m.sparsity) ** many
    feed = hit * m.experts * (m.up + m.down) * product_byte(m.d_ff, m.d_model, many / m.sparsity, m, shards)
    attention = product_byte(m.d_model, m.columns, many, m, shards) + product_byte(m.heads * m.d_head, m.d_model, many, m, shards)
    cache = 2 * m.kv_heads * m.d_head * m.layers * m.cache_byte * context * batch
    return cache + m.layers * (feed + attention) + m.weight_byte * m.vocab * m.d_model


def latency_s(
    chips: Array, batch: Array, m: Shape, chip: dict[str, float], v: dict[str, float], context: float = 0.0, tokens: float = 1.0
) -> Array:
    """Time of one pass that gives ``tokens`` tokens to every sequence, by the best layout; infinite where memory is too small."""
    best = np.full(np.shape(chips), np.inf)
    rate = chip["flop16"] if m.weight_byte > 1 else chip["flop8"]
    attended = context + (tokens - 1) / 2
    flop = 2 * m.params(m.active) * batch * tokens + 4 * m.d_head * m.heads * m.layers * attended * batch * tokens
    kept = 2 * m.kv_heads * m.d_head * m.layers * m.cache_byte * context * batch
    fits = chips * chip["memory"] >= kept + m.weight_byte * m.params(m.experts)
    for stages in STAGES:
        width, part = chips / stages, batch / stages
        step = np.maximum(
            stages * memory_byte(m, part, context, tokens, width) / (chips * chip["bandwidth"]),
            flop / (chips * rate),
        )
        boxes = np.ceil(width / chip["node"])
        passed = m.d_model * part * tokens / width * m.cache_byte
        pair = np.full(np.shape(chips), 2.0)
        passing = (stages - 1) * reduction_s(pair, pair, passed, chip, v, both_ways=1.0)
        for square in (True, False):
            ranks, nodes = (np.sqrt(width), np.sqrt(boxes)) if square else (width, boxes)
            beside = width / ranks
            out = m.active * m.down * m.d_model
            words = (m.columns, m.d_model, m.active * m.up * m.d_ff, out) if square else (m.d_model, out)
            net = sum(reduction_s(ranks, nodes, w / beside * part * tokens * m.cache_byte, chip, v) for w in words)
            whole = m.layers * (PRODUCTS * v["launch.kernel"] + net) + passing + step
            best = np.minimum(best, np.where(fits & (stages <= np.minimum(chips, batch)), whole, np.inf))
    return best


def front(speed: Array, price: Array) -> tuple[Array, Array]:
    """Cheapest design at least so fast, from the largest speed to a hundredth of it: speed and price of that design."""
    order = np.argsort(-speed, axis=None, kind="stable")
    fast, cost = speed.ravel()[order], price.ravel()[order]
    least = np.minimum.accumulate(cost)
    first = np.concatenate([[True], least[1:] < least[:-1]])
    at = np.maximum.accumulate(np.where(first, np.arange(len(cost)), 0))
    limits = fast[0] * np.logspace(0, -SPAN, SAMPLES)
    last = np.searchsorted(-fast, -limits, side="right") - 1
    return fast[at[last]], cost[at[last]]


def solve(case: dict[str, float], model: Shape, draft: Shape | None, chip: dict[str, float], v: dict[str, float]) -> dict[str, float]:
    """Speed of one user at its largest, at his preferred point, price there (USD/token), and the least price."""
    context, small = case.get("context", 0.0), model.weight_byte * model.params(model.experts) / chip["memory"]
    count = np.unique(np.ceil(np.logspace(np.log2(small), LARGEST_CHIPS, COUNTS, base=2.0)))
    size = np.logspace(0, LARGEST_BATCH + np.log2(model.sparsity), BATCHES, base=2.0)
    chips, batch = (np.array(x) for x in np.broadcast_arrays(count[None, :], size[:, None]))
    step = latency_s(chips, batch, model, chip, v, context)
    if draft is not None:
        own, a = latency_s(chips, batch, draft, chip, v, context), v["draft.acceptance"]
        for n in range(2, DRAFTED + 1):
            checked = latency_s(chips, batch, model, chip, v, context, float(n)) + (n - 1) * own
            step = np.minimum(step, checked * (1 - a) / (1 - a**n))
    step = np.where(batch / step <= case.get("cap", np.inf), step, np.inf)
    speed, price = front(1 / step, chips * step / batch * chip["rent"])
    liked = int(np.argmax(speed**PREFERENCE / price))
    return {
        "fastest": float(speed[0]),
        "preferred": float(speed[liked]),
        "preferred_price": float(price[liked]),
        "least_price": float(price.min()),
    }


def _group(record: Record, name: str) -> dict[str, float]:
    return {key.removeprefix(name + "."): q.value for key, q in record.values.items() if key.startswith(name + ".")}


def shapes(catalog: Catalog, record: Record, name: str, weight_byte: float) -> Shape:
    """A model of the catalogue, or the speculative one that only his file describes."""
    if name == SPECULATIVE:
        return Shape(**_group(record, "gpt4"), weight_byte=weight_byte)
    return shape_of(catalog.models[name], weight_byte)


QUANTITIES = {
    "fastest": ("largest speed, token/s", 1.0),
    "preferred": ("preferred speed, token/s", 1.0),
    "preferred_price": ("price there, USD/Mtoken", MILLION),
    "least_price": ("least price, USD/Mtoken", MILLION),
}


def erdil(catalog: Catalog) -> Table:
    """His table under his assumptions."""
    record = catalog.records["rebuild"]["erdil"]
    v = {name: q.value for name, q in record.values.items()}
    rows: list[Row] = []
    for key in sorted({name.split(".")[1] for name in record.values if name.startswith("case.")}):
        case, meta = (
            _group(record, f"case.{key}"),
            {k: str(record.meta.get(f"case.{key}.{k}", "")) for k in ("name", "model", "chip", "draft")},
        )
        model = shapes(catalog, record, meta["model"], case["bits"])
        draft = shapes(catalog, record, meta["draft"], 2.0) if meta["draft"] else None
        made = solve(case, model, draft, _group(record, meta["chip"]), v)
        for name, (label, scale) in QUANTITIES.items():
            if name in case:
                row = {"case": meta["name"], "quantity": label, "predicted": made[name] * scale, "published": case[name] * scale}
                rows.append(judged(row, WITHIN))
    return Table(
        "erdil",
        "Inference economics of language models, under its own assumptions",
        "10 % of the reference outputs of its notebook",
        counted([{**row, "chip": row["case"]} for row in rows]),
        rows,
        [
            "His terms in place of ours: labels as rates, no calibrated constant, four launches of 4 us a layer, H100 rented at 2.10 USD "
            "an hour, no context unless said. What our own model says, calibrated, stands in reports/validation.",
            "His price at the largest speed is left out: there the front is so steep that half a per cent of speed moves it threefold, and "
            "it depends on the points of his grid.",
            "Groq has the launch time of a GPU here, as in his notebook; a statically scheduled chip has none.",
        ],
    )
