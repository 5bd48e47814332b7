"""Layers of mixed kinds in a Hugging Face ``config.json``: state-space and linear-attention hybrids, chunked and windowed stacks.

Each function gives mixers, feed-forwards and the row of layers of one family, as ``dse.catalog.huggingface`` puts them into a model file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.catalog.parts import dense, flags, gqa, groups, moe, need, runs
from dse.errors import InputError

Config = Mapping[str, Any]
HALVES = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}  # letters of a row of single halves
BLOCKS = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "mlp": "-", "moe": "E"}
RANK_SHARE = 16  # width over rank of the step projection of Mamba where a config says auto


def _typed(mixers: dict[str, Any], ffns: dict[str, Any], row: list[tuple[str, str]]) -> dict[str, Any]:
    """A row of (mixer, feed-forward) as layer types with a letter each, in order of appearance; parts that no layer has are left out."""
    kinds = list(dict.fromkeys(row))
    letter = {kind: chr(ord("A") + i) for i, kind in enumerate(kinds)}
    return {
        "mixers": {name: part for name, part in mixers.items() if any(name == m for m, _ in kinds)},
        "ffns": {name: part for name, part in ffns.items() if any(name == f for _, f in kinds)},
        "layer_types": {letter[kind]: {"mixer": kind[0], "ffn": kind[1]} for kind in kinds},
        "layer_pattern": runs("".join(letter[kind] for kind in row)),
    }


def qwen3_next(c: Config) -> dict[str, Any]:
    """Gated delta net with full attention between; experts with a gated shared one in every layer that is not named as dense."""
    linear = {
        "kind": "gated_deltanet",
        "key_heads": need(c, "linear_num_key_heads"),
        "value_heads": need(c, "linear_num_value_heads"),
        "key_head_dim": need(c, "linear_key_head_dim"),
        "value_head_dim": need(c, "linear_value_head_dim"),
        "conv_kernel": need(c, "linear_conv_kernel_dim"),
    }
    shared = c.get("shared_expert_intermediate_size") or 0
    mixture = bool(c.get("num_experts"))
    ffns = (
        {"moe": moe(c, shared=int(shared > 0), shared_width=shared, shared_expert_gate=shared > 0, router_score="softmax")}
        if mixture
        else {}
    )
    n, given = need(c, "n_layers"), c.get("layer_types")
    step, plain = c.get("decoder_sparse_step", 1), c.get("mlp_only_layers") or []
    full = [t == "full_attention" for t in given] if given else [(i + 1) % need(c, "full_attention_interval") == 0 for i in range(n)]
    sparse = [mixture and i not in plain and (i + 1) % step == 0 for i in range(n)]
    if not all(sparse):
        ffns["mlp"] = dense(c)
    row = [("full" if f else "linear", "moe" if s else "mlp") for f, s in zip(full, sparse, strict=True)]
    return _typed({"linear": linear, "full": gqa(c, qk_norm="per_head", output_gate=True)}, ffns, row)


def llama4(c: Config) -> dict[str, Any]:
    """Attention within chunks, full in each layer without rotary positions; experts with a shared one in all or every second layer."""
    n, step = need(c, "n_layers"), need(c, "interleave_moe_layer_step")
    given = c.get("no_rope_layers")  # marks, in spite of its name, the layers that have them
    rotary = given or [(i + 1) % need(c, "no_rope_layer_interval") != 0 for i in range(n)]
    mixtures = c.get("moe_layers")
    sparse = [i in mixtures if mixtures is not None else (i + 1) % step == 0 for i in range(n)]
    norm = "l2_without_weights" if c.get("use_qk_norm", True) else "none"
    chunk = c.get("attention_chunk_size")
    mixers = {"chunked": gqa(c, window=chunk, qk_norm=norm) | ({"window_kind": "chunked"} if chunk else {}), "full": gqa(c)}
    ffns = {
        "moe": moe(c, "intermediate_size", shared=1, router_score="sigmoid"),
        "dense": dense(c, need(c, "intermediate_size_mlp")),
    }
    return _typed(mixers, ffns, [("chunked" if r else "full", "moe" if s else "dense") for r, s in zip(rotary, sparse, strict=True)])


def nemotron_h(c: Config) -> dict[str, Any]:
    """Mamba-2, attention and feed-forwards as layers of their own, one norm each, in the order of a pattern."""
    pattern = c.get("hybrid_override_pattern")
    blocks = c.get("layers_block_type") or c.get("layer_types")
    if pattern is None and blocks is None:
        need(c, "hybrid_override_pattern")
    row = pattern or "".join(BLOCKS.get(b, b) for b in blocks or [])
    if unknown := sorted(set(row) - set(HALVES)):
        raise InputError(f"config.json: hybrid_override_pattern — found {', '.join(unknown)}, allowed {' '.join(HALVES)}")
    if c.get("moe_latent_size"):
        raise InputError("config.json: moe_latent_size — found experts of a narrower input, which are not modelled; allowed null")
    bias = bool(c.get("attention_bias"))
    head = c.get("head_dim") or c.get("attention_head_dim")
    mamba = {
        "kind": "mamba2",
        "heads": need(c, "mamba_num_heads"),
        "head_dim": need(c, "mamba_head_dim"),
        "state_size": need(c, "ssm_state_size"),
        "groups": need(c, "n_groups"),
        "conv_kernel": need(c, "conv_kernel"),
        **flags(conv_bias=bool(c.get("use_conv_bias", True))),
    }
    parts: dict[str, Any] = {"mixers": {"mamba": mamba} if "M" in row else {}, "ffns": {}}
    if "*" in row:
        parts["mixers"]["attention"] = gqa({**c, "head_dim": head} if head else c, qkv_bias=bias, o_bias=bias)
    if "-" in row:
        parts["ffns"]["mlp"] = dense(c, matrices=2, activation="relu2", bias=bool(c.get("mlp_bias")))
    if "E" in row:
        width = c.get("moe_shared_expert_intermediate_size")
        mixture = moe(c, shared=c.get("n_shared_experts") or 0, shared_width=width, router_score="sigmoid", **groups(c))
        parts["ffns"]["moe"] = mixture | {"activation": "relu2", "matrices": 2, "router_selection_bias": True}
    types = {x: {"ffn" if HALVES[x] in parts["ffns"] else "mixer": HALVES[x]} for x in dict.fromkeys(row)}
    return {**parts, "layer_types": types, "layer_pattern": [[1, row]], "norms_per_layer": 1, "position": "none"}


def jamba(c: Config) -> dict[str, Any]:
    """Mamba with attention in one layer of a period, experts in one of another."""
    d = need(c, "d_model")
    rank = c.get("mamba_dt_rank", "auto")
    mamba = {
        "kind": "mamba",
        "width": need(c, "mamba_expand") * d,
        "state_size": need(c, "mamba_d_state"),
        "dt_rank": -(-d // RANK_SHARE) if rank == "auto" else rank,
        "conv_kernel": need(c, "mamba_d_conv"),
        "inner_norms": True,
        **flags(conv_bias=bool(c.get("mamba_conv_bias", True)), proj_bias=bool(c.get("mamba_proj_bias"))),
    }
    layers, period, offset = range(need(c, "n_layers")), need(c, "expert_layer_period"), need(c, "expert_layer_offset")
    attention = [i % need(c, "attn_layer_period") == need(c, "attn_layer_offset") for i in layers]
    mixture = [c.get("num_experts", 1) > 1 and i % period == offset for i in layers]
    ffns = {"moe": moe(c, "intermediate_size", router_score="softmax")} if any(mixture) else {}
    row = [("attention" if a else "mamba", "moe" if m else "mlp") for a, m in zip(attention, mixture, strict=True)]
    return _typed({"mamba": mamba, "attention": gqa(c)}, ffns | {"mlp": dense(c)}, row) | {"position": "none"}
