"""Parts of a model file from the fields of a Hugging Face ``config.json``: mixers, feed-forwards and rows of layers that families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from dse.errors import InputError

Config = Mapping[str, Any]
# config names that mean the same
SYNONYMS = {
    "d_model": ("hidden_size", "n_embd", "n_embed"),
    "n_layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "experts_per_token"),
    "max_context": ("max_position_embeddings", "n_positions", "seq_length"),
}


def first(c: Config, names: tuple[str, ...]) -> Any:
    return next((c[n] for n in names if c.get(n) is not None), None)


def need(c: Config, name: str) -> Any:
    """The value of a field under any of its names. Raises InputError if there is none."""
    names = SYNONYMS.get(name, (name,))
    found = first(c, names)
    if found is None:
        raise InputError(f"config.json: {names[0]} — missing; a model_type of {c.get('model_type')!r} needs it")
    return found


def flags(**fields: Any) -> dict[str, Any]:
    """The fields that say something: neither None nor False nor the word none."""
    return {k: v for k, v in fields.items() if v is not None and v is not False and v != "none"}


def gqa(c: Config, window: int | None = None, kv_heads: int | None = None, **details: Any) -> dict[str, Any]:
    """Mixer with shared key-value heads; MHA and MQA are its ends."""
    heads = need(c, "heads")
    kv_heads = kv_heads or c.get("num_key_value_heads") or heads
    kind = "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa"
    head_dim = c.get("head_dim") or need(c, "d_model") // heads
    sliding = flags(window=window, window_kind="sliding" if window else None)
    return {"kind": kind, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, **sliding, **flags(**details)}


def dense(c: Config, width: int | None = None, matrices: int = 3, bias: bool = False, activation: str = "swiglu") -> dict[str, Any]:
    """Dense feed-forward."""
    return {
        "kind": "dense",
        "d_ff": width or need(c, "intermediate_size"),
        "activation": activation,
        "matrices": matrices,
        **flags(bias=bias),
    }


def moe(
    c: Config, width: str = "moe_intermediate_size", shared: int = 0, shared_width: int | None = None, **details: Any
) -> dict[str, Any]:
    """Mixture of experts."""
    out = {"kind": "moe", "experts": need(c, "experts"), "experts_per_token": need(c, "experts_per_token"), "expert_d_ff": need(c, width)}
    if shared:
        out |= {"shared_experts": shared, "shared_expert_d_ff": shared_width or out["expert_d_ff"]}
    return out | {"activation": "swiglu", "matrices": 3, **flags(**details)}


def uniform(c: Config, mixer: dict[str, Any], ffn: dict[str, Any]) -> dict[str, Any]:
    """All layers alike."""
    return {
        "mixers": {"attention": mixer},
        "ffns": {ffn["kind"] if ffn["kind"] == "moe" else "mlp": ffn},
        "layer_types": {"A": {"mixer": "attention", "ffn": "moe" if ffn["kind"] == "moe" else "mlp"}},
        "layer_pattern": [[need(c, "n_layers"), "A"]],
    }


def dense_then_moe(c: Config, name: str, mixer: dict[str, Any], ffn: dict[str, Any], is_moe: Callable[[int], bool]) -> dict[str, Any]:
    """Dense layers where ``is_moe(layer)`` is false, experts elsewhere."""
    flags = [is_moe(i) for i in range(need(c, "n_layers"))]
    types = {letter: {"mixer": name, "ffn": part} for letter, part, on in (("D", "dense", not all(flags)), ("E", "moe", any(flags))) if on}
    ffns = {kind: part for kind, part in (("dense", dense(c) if "D" in types else None), ("moe", ffn)) if part}
    return {"mixers": {name: mixer}, "ffns": ffns, "layer_types": types, "layer_pattern": runs("".join("DE"[f] for f in flags))}


def runs(text: str) -> list[list[Any]]:
    """Run-length form of a row of layers: the shortest of its periods and what is left over, or letter by letter.

    >>> runs("DDDEE"), runs("LLFLLFL")
    ([[3, 'D'], [2, 'E']], [[2, 'LLF'], [1, 'L']])
    """
    for period in range(2, len(text) // 2 + 1):
        count = len(text) // period
        if len(set(text[:period])) > 1 and text.startswith(text[:period] * count):
            return [[count, text[:period]], *runs(text[period * count :])]
    return [[len(list(same)), letter] for letter, same in groupby(text)]


def windowed(c: Config, ffn: dict[str, Any], every: int | None, **details: Any) -> dict[str, Any]:
    """Layers with a sliding window between layers that see everything (``layer_types``, or each ``every``-th layer)."""
    n, given = need(c, "n_layers"), c.get("layer_types")
    full = [t == "full_attention" for t in given] if given else [every is not None and (i + 1) % every == 0 for i in range(n)]
    name = ffn["kind"] if ffn["kind"] == "moe" else "mlp"
    return {
        "mixers": {"sliding": gqa(c, window=need(c, "sliding_window"), **details), "full": gqa(c, **details)},
        "ffns": {name: ffn},
        "layer_types": {"S": {"mixer": "sliding", "ffn": name}, "F": {"mixer": "full", "ffn": name}},
        "layer_pattern": runs("".join("SF"[f] for f in full)),
    }


def groups(c: Config) -> dict[str, Any]:
    """Groups of experts that a token is limited to, where a config has them."""
    return flags(router_groups=c.get("n_group"), router_topk_groups=c.get("topk_group"))
