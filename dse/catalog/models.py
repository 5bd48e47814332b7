"""What does a language model compute, move and store for one token? Builds ``dse.types.LLM`` from a model file.

Identical layers are merged to groups; attention kinds differ in numbers only. ``counts`` gives the totals that can be
compared with published ones. ``import_hf_config`` writes a model file from a Hugging Face ``config.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dse import types
from dse.catalog import architecture as arc
from dse.catalog.huggingface import import_hf_config
from dse.errors import InputError

__all__ = ["MAX_GROUPS", "architecture_of", "build_model", "counts", "import_hf_config", "pad_groups"]

MAX_GROUPS = 4
ALL = 1e9  # tokens: more than any context, written where there is no window and no indexer
FP32_BYTE, BF16_BYTE = 4, 2
BYTE_BIT = 8
# FLOP for one cell of a recurrent state and token: decay 1, outer product added 2, read-out 2; the delta rule reads once more, 2; where
# each cell decays at a rate of its own, that rate times the step and its exponential, 2
STATE_FLOP_PER_CELL = {"gated_deltanet": 7, "mamba": 7, "mamba2": 5}

NO_MIXER = types.Attention(
    in_columns=0.0, in_sharded=1.0, up_rank=0.0, up_columns=0.0, latent_rank=0.0, latent_columns=0.0, out_rows=0.0,
    heads=1.0, kv_heads=1.0, kv_values=0.0, query_values=0.0, prefill_values=0.0, decode_flop=0.0, prefill_flop=0.0,
    window=ALL, window_mean=1.0, index_topk=ALL, index_flop=0.0, index_values=0.0, state_byte=0.0, state_flop=0.0,
    latent=0.0, scored=0.0, params=0.0,
)  # fmt: skip
NO_FFN = types.FeedForward(
    width=0.0, matrices=0.0, experts=0.0, experts_per_token=0.0, expert_width=0.0, expert_params=0.0, params=0.0,
    groups=1.0, groups_per_token=1.0,
)  # fmt: skip


def _place(record: Any) -> str:
    return str(record.get("id", "model") if isinstance(record, Mapping) else record.file)


def architecture_of(record: Any) -> Mapping[str, Any]:
    """The checked ``[architecture]`` table of a catalogue record or of a parsed model file.

    Raises InputError with every mistake of the table.
    """
    raw = record if isinstance(record, Mapping) else record.meta
    name = _place(record)
    table = raw.get("architecture")
    if not isinstance(table, Mapping):
        raise InputError(
            f"{name}: architecture — missing, allowed a table with n_layers, d_model, mixers, ffns, layer_types, layer_pattern"
        )
    if problems := arc.problems_of(table, f"{name}: architecture"):
        raise InputError(problems)
    return table


def _attention(m: Mapping[str, Any]) -> types.Attention:
    heads, kv_heads, e = m["heads"], m["kv_heads"], m["head_dim"]
    v = m.get("v_head_dim", e)
    gates = 2 if m.get("output_gate") else 1
    query, cached = heads * (e + v), kv_heads * (e + v)
    return dataclasses.replace(
        NO_MIXER,
        in_columns=float(gates * heads * e + cached),
        out_rows=float(heads * v),
        heads=float(heads),
        kv_heads=float(kv_heads),
        kv_values=float(cached),
        query_values=float(query),
        prefill_values=float(query + cached),
        decode_flop=2.0 * query,
        prefill_flop=2.0 * query,
        window=float(m.get("window", ALL)),
        window_mean=0.5 if m.get("window_kind") == "chunked" else 1.0,
        scored=1.0,
    )


def _mla(m: Mapping[str, Any]) -> types.Attention:
    heads, r, p, n, v = m["heads"], m["kv_lora_rank"], m["qk_rope_head_dim"], m["qk_nope_head_dim"], m["v_head_dim"]
    query_rank, index = m.get("q_lora_rank", 0), m.get("indexer", {})
    index_heads, index_dim = index.get("heads", 0), index.get("head_dim", 0)
    query, index_query = heads * (n + p), index_heads * index_dim
    from_model = r + p + index_dim + index_heads
    return dataclasses.replace(
        NO_MIXER,
        in_columns=float(query_rank + from_model if query_rank else query + index_query + from_model),
        in_sharded=0.0,
        up_rank=float(query_rank),
        up_columns=float(query + index_query if query_rank else 0),
        latent_rank=float(r),
        latent_columns=float(heads * (n + v)),
        out_rows=float(heads * v),
        heads=float(heads),
        kv_values=float(r + p),
        query_values=float(heads * (2 * r + p)),
        prefill_values=2.0 * heads * (n + p + v),
        decode_flop=2.0 * heads * (2 * r + p),
        prefill_flop=2.0 * heads * (n + p + v),
        index_topk=float(index.get("topk", ALL)),
        index_flop=2.0 * index_query,
        index_values=float(index_dim),
        latent=1.0,
        scored=1.0,
    )


def _recurrent(columns: int, rows: int, cells: int, channels: int, m: Mapping[str, Any]) -> types.Attention:
    kernel = m["conv_kernel"]
    return dataclasses.replace(
        NO_MIXER,
        in_columns=float(columns),
        out_rows=float(rows),
        state_byte=float(FP32_BYTE * cells + BF16_BYTE * channels * (kernel - 1)),
        state_flop=float(STATE_FLOP_PER_CELL[m["kind"]] * cells + 2 * channels * kernel),
    )


def _deltanet(m: Mapping[str, Any]) -> types.Attention:
    key, value = m["key_heads"] * m["key_head_dim"], m["value_heads"] * m["value_head_dim"]
    cells = value * m["key_head_dim"]
    return _recurrent(2 * key + 2 * value + 2 * m["value_heads"], value, cells, 2 * key + value, m)


def _mamba(m: Mapping[str, Any]) -> types.Attention:
    width, chosen = m["width"], m["dt_rank"] + 2 * m["state_size"]
    inner = {"up_rank": width, "up_columns": chosen, "latent_rank": m["dt_rank"], "latent_columns": width}
    built = _recurrent(2 * width, width, width * m["state_size"], width, m)
    return dataclasses.replace(built, **{name: float(n) for name, n in inner.items()})


def _mamba2(m: Mapping[str, Any]) -> types.Attention:
    inner = m["heads"] * m["head_dim"]
    channels = inner + 2 * m["groups"] * m["state_size"]
    return _recurrent(inner + channels + m["heads"], inner, inner * m["state_size"], channels, m)


def _mixer(m: Mapping[str, Any], d: int, norms: int) -> types.Attention:
    built = {"mla": _mla, "gated_deltanet": _deltanet, "mamba": _mamba, "mamba2": _mamba2}.get(m["kind"], _attention)(m)
    return dataclasses.replace(built, params=float(arc.total(arc.mixer_weights(m, d)) + norms))


def _ffn(f: Mapping[str, Any], d: int, norms: int) -> types.FeedForward:
    w = arc.ffn_weights(f, d)
    moe = f["kind"] == "moe"
    return types.FeedForward(
        width=float(arc.shared_width(f) if moe else f["d_ff"]),
        matrices=float(f["matrices"]),
        experts=float(f["experts"] if moe else 0),
        experts_per_token=float(f["experts_per_token"] if moe else 0),
        expert_width=float(f["expert_d_ff"] if moe else 0),
        expert_params=float(w.routed + w.routed_small),
        params=float(arc.total(w, 0.0) + norms),
        groups=float(f.get("router_groups", 1)),
        groups_per_token=float(f.get("router_topk_groups", f.get("router_groups", 1))),
    )


def _layer_kinds(arch: Mapping[str, Any]) -> list[tuple[dict[str, Any], int, int]]:
    """(layer type, how many with its mixer, how many with its feed-forward); single halves are joined to whole layers."""
    text = arc.letters(arch)
    merged: dict[tuple[str | None, str | None], int] = {}
    for letter in dict.fromkeys(text):
        layer = arch["layer_types"][letter]
        key = (layer.get("mixer"), layer.get("ffn"))
        merged[key] = merged.get(key, 0) + text.count(letter)
    lone_ffns = [(key, n) for key, n in merged.items() if key[0] is None]
    out: list[tuple[dict[str, Any], int, int]] = []
    for (mixer, ffn), n in merged.items():
        if mixer and not ffn and lone_ffns:
            (_, other), count = lone_ffns.pop(0)
            out.append(({"mixer": mixer, "ffn": other, "halves": True}, n, count))
        elif mixer:
            out.append(({"mixer": mixer, "ffn": ffn}, n, n if ffn else 0))
    return out + [({"ffn": key[1]}, 0, n) for key, n in lone_ffns]


def _group(arch: Mapping[str, Any], layer: Mapping[str, Any], mixers: int, ffns: int) -> types.LayerGroup:
    d, width = arch["d_model"], arc.norm_width(arch)
    if layer.get("halves"):
        mixer_norms = ffn_norms = arch.get("norms_per_layer", 2)
    else:
        mixer_norms, ffn_norms = arc.layer_norms(arch, layer)
    return types.LayerGroup(
        mixers=float(mixers),
        ffns=float(ffns),
        attention=_mixer(arch["mixers"][layer["mixer"]], d, mixer_norms * width) if layer.get("mixer") else NO_MIXER,
        ffn=_ffn(arch["ffns"][layer["ffn"]], d, ffn_norms * width) if layer.get("ffn") else NO_FFN,
        syncs=1.0 if arch.get("parallel_attention_ffn") else 2.0,
    )


def pad_groups(model: types.LLM, count: int = MAX_GROUPS) -> types.LLM:
    """The same model with ``count`` groups, the added ones empty, so that all models have one tree."""
    empty = types.LayerGroup(mixers=0.0, ffns=0.0, attention=NO_MIXER, ffn=NO_FFN, syncs=2.0)
    return dataclasses.replace(model, groups=model.groups + (empty,) * (count - len(model.groups)))


def _native(record: Any, arch: Mapping[str, Any]) -> types.Format:
    try:
        return types.named_format(arch.get("weights", {}).get("format", "bf16"))
    except InputError as error:
        raise InputError([f"{_place(record)}: architecture.weights.{problem}" for problem in error.problems]) from error


def build_model(record: Any) -> types.LLM:
    """The numbers of a language model from a catalogue record or a parsed model file.

    ``params`` [1] counts the text model: groups + ``embedding_params``. ``embedding_params`` [1] holds all that lies outside of
    the layers: embedding and output head (once if tied), learned positions, head bias, outer norms. ``active_params`` [1]: layers
    with the chosen experts, outer norms, output head. Bytes of a state count fp32 cells and bf16 convolution inputs.
    Raises InputError for a wrong architecture, or one with more than four kinds of layers.
    """
    arch = architecture_of(record)
    kinds = _layer_kinds(arch)
    if len(kinds) > MAX_GROUPS:
        raise InputError(f"{_place(record)}: architecture.layer_types — found {len(kinds)} kinds of layers, allowed at most {MAX_GROUPS}")
    n = counts(record)
    return types.LLM(
        d_model=float(arch["d_model"]),
        vocab=float(arch["vocab_size"]),
        params=float(n["params"]),
        active_params=float(n["active_params"]),
        embedding_params=float(n["embedding_params"]),
        head_params=float(arch["vocab_size"] * arch["d_model"]),
        native=_native(record, arch),
        groups=tuple(_group(arch, *kind) for kind in kinds),
    )


def _sum_layers(arch: Mapping[str, Any]) -> dict[str, float]:
    """Weights of all layers by role, and what one token uses of them."""
    out = dict.fromkeys((*(f.name for f in dataclasses.fields(arc.Weights)), "active", "active_matrix"), 0.0)
    for letter in arc.letters(arch):
        layer = arch["layer_types"][letter]
        parts = [(arc.Weights(small=arch.get("norms_per_layer", 2) * arc.norm_width(arch)), 0.0)]
        if layer.get("mixer"):
            parts.append((arc.mixer_weights(arch["mixers"][layer["mixer"]], arch["d_model"]), 0.0))
        if layer.get("ffn"):
            f = arch["ffns"][layer["ffn"]]
            share = f["experts_per_token"] / f["experts"] if f["kind"] == "moe" else 0.0
            parts.append((arc.ffn_weights(f, arch["d_model"]), share))
        for w, share in parts:
            for role, number in dataclasses.asdict(w).items():
                out[role] += number
            out["active"] += arc.total(w, share)
            out["active_matrix"] += w.matrix + w.gate + share * w.routed
    return out


def _sum_mixers(arch: Mapping[str, Any]) -> dict[str, float]:
    """Cache, state and score FLOP of all layers, bf16 cache."""
    out = dict.fromkeys(
        ("kv", "kv_window", "index", "state_byte", "state_flop", "decode_flop", "prefill_flop", "window_flop", "index_flop"), 0.0
    )
    for letter in arc.letters(arch):
        name = arch["layer_types"][letter].get("mixer")
        if not name:
            continue
        a = _mixer(arch["mixers"][name], arch["d_model"], 0)
        windowed = a.window < ALL
        out["kv_window" if windowed else "kv"] += BF16_BYTE * a.kv_values
        out["window_flop" if windowed else "decode_flop"] += a.decode_flop
        out["prefill_flop"] += 0.0 if windowed else a.prefill_flop
        out["index"] += BF16_BYTE * a.index_values
        out["index_flop"] += a.index_flop
        out["state_byte"] += a.state_byte
        out["state_flop"] += a.state_flop
    return out


def _mtp_params(arch: Mapping[str, Any]) -> float:
    """Weights of multi-token-prediction modules: one layer, a joining projection, three norms each."""
    if "mtp" not in arch:
        return 0.0
    d, layer = arch["d_model"], arch["layer_types"][arch["mtp"]["layer"]]
    norms = (arch.get("norms_per_layer", 2) + 1 + 2) * arc.norm_width(arch)
    parts = arc.total(arc.mixer_weights(arch["mixers"][layer["mixer"]], d)) + arc.total(arc.ffn_weights(arch["ffns"][layer["ffn"]], d))
    return arch["mtp"]["modules"] * (parts + 2 * d * d + norms)


def _weight_byte(arch: Mapping[str, Any], layers: dict[str, float], params: float) -> float:
    """Bytes of the text model in the format of release."""
    w = arch.get("weights", {})
    part = {"routed_experts": layers["routed"], "layer_matrices": layers["routed"] + layers["matrix"]}.get(
        w.get("quantised_part", "none"), 0.0
    )
    other = w.get("other_bits", BF16_BYTE * BYTE_BIT)
    return (part * w.get("quantised_bits", other) + (params - part) * other) / BYTE_BIT


def counts(record: Any) -> dict[str, float]:
    """Totals of a model: parameters [1], bytes of cache in bf16 [byte/token], FLOP of one token [FLOP/token].

    ``flop_per_token``: 2 for each weight multiplied (router and head included; no embedding look-up, norms, biases), short
    convolutions and state updates, no attention scores; ``*_flop_per_context_token`` are those. Multi-token-prediction modules and
    vision towers are apart (``mtp_params``, ``other_params``).
    """
    arch = architecture_of(record)
    layers, mixers = _sum_layers(arch), _sum_mixers(arch)
    vocabulary = arch["vocab_size"] * arch["d_model"]
    head = 0 if arch.get("tied_embeddings") else vocabulary
    bias = arch["vocab_size"] if arch.get("lm_head_bias") else 0
    positions = arch.get("learned_positions", 0) * arch["d_model"]
    outer = arc.norm_width(arch) * (2 if arch.get("embedding_norm") else 1)
    surround = vocabulary + head + bias + positions + outer
    body = sum(layers[f.name] for f in dataclasses.fields(arc.Weights))
    active_body = layers["active"] + outer
    return {
        "params": body + surround,
        "body_params": body,
        "embedding_params": surround,
        "routed_params": layers["routed"],
        "active_params": active_body + vocabulary + bias,
        "active_body_params": active_body,
        "active_params_with_embedding": active_body + vocabulary + bias + head + positions,
        "mtp_params": _mtp_params(arch),
        "other_params": sum(arch.get("other_params", {}).values()),
        "flop_per_token": 2 * (layers["active_matrix"] + vocabulary) + mixers["state_flop"],
        "decode_flop_per_context_token": mixers["decode_flop"],
        "prefill_flop_per_context_token": mixers["prefill_flop"],
        "window_flop_per_context_token": mixers["window_flop"],
        "index_flop_per_context_token": mixers["index_flop"],
        "kv_byte_per_token": mixers["kv"],
        "kv_byte_per_token_window": mixers["kv_window"],
        "index_byte_per_token": mixers["index"],
        "state_byte_per_sequence": mixers["state_byte"],
        "weight_byte": _weight_byte(arch, layers, body + surround),
    }
