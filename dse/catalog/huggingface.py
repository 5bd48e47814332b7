"""Which model file describes this Hugging Face ``config.json``? Reads the fields of known architectures, writes TOML text.

One small function a family gives its mixers and feed-forwards; what a family fixes in code rather than in the config (biases,
norms) is written here. An architecture that is not listed is refused, never guessed.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dse.catalog import hybrids
from dse.catalog.parts import SYNONYMS, Config, dense, dense_then_moe, first, flags, gqa, groups, moe, need, uniform, windowed
from dse.errors import InputError, closest
from dse.paths import data_dir

SANDWICH = 4  # norms of a layer with one before and one after each half
FFN_FACTOR = 4  # width of a feed-forward over d_model where a config leaves it out: the default of these families
DEFAULTS = "config_defaults.toml"


def _llama(c: Config) -> dict[str, Any]:
    bias = c.get("attention_bias", False)
    return uniform(c, gqa(c, window=c.get("sliding_window"), qkv_bias=bias, o_bias=bias), dense(c, bias=c.get("mlp_bias", False)))


def _mixtral(c: Config) -> dict[str, Any]:
    return uniform(c, gqa(c, window=c.get("sliding_window")), moe(c, "intermediate_size", router_score="softmax"))


def _qwen2(c: Config) -> dict[str, Any]:
    window = c.get("sliding_window") if c.get("use_sliding_window") else None
    return uniform(c, gqa(c, window=window, qkv_bias=True), dense(c))


def _qwen3(c: Config) -> dict[str, Any]:
    bias = c.get("attention_bias", False)
    return uniform(c, gqa(c, qk_norm="per_head", qkv_bias=bias, o_bias=bias), dense(c))


def _qwen_moe(c: Config) -> dict[str, Any]:
    newer = c["model_type"] == "qwen3_moe"
    shared = c.get("shared_expert_intermediate_size") or 0
    ffn = moe(c, shared=1 if shared else 0, shared_width=shared, shared_expert_gate=bool(shared), router_score="softmax")
    mixer = gqa(c, **({"qk_norm": "per_head"} if newer else {"qkv_bias": True}))
    step, plain = c.get("decoder_sparse_step", 1), c.get("mlp_only_layers") or []
    return dense_then_moe(c, "attention", mixer, ffn, lambda i: i not in plain and (i + 1) % step == 0)


def _mla(c: Config) -> dict[str, Any]:
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    mixer = {"kind": "mla", "heads": need(c, "heads"), **flags(q_lora_rank=c.get("q_lora_rank")), **{n: need(c, n) for n in names}}
    if c.get("index_topk"):
        mixer["indexer"] = {"heads": need(c, "index_n_heads"), "head_dim": need(c, "index_head_dim"), "topk": c["index_topk"]}
    return mixer


def _deepseek(c: Config) -> dict[str, Any]:
    score = c.get("scoring_func", "softmax")
    ffn = moe(c, shared=c.get("n_shared_experts") or 0, router_score=score, router_selection_bias=score == "sigmoid", **groups(c))
    first, freq = c.get("first_k_dense_replace", 0), c.get("moe_layer_freq", 1)
    return dense_then_moe(c, "mla", _mla(c), ffn, lambda i: i >= first and i % freq == 0) | _mtp(c)


def _glm4_moe(c: Config) -> dict[str, Any]:
    mixer = gqa(c, qkv_bias=c.get("attention_bias", False), qk_norm="per_head" if c.get("use_qk_norm") else "none")
    ffn = moe(c, shared=c.get("n_shared_experts") or 0, router_score="sigmoid", router_selection_bias=True, **groups(c))
    first = c.get("first_k_dense_replace", 0)
    return dense_then_moe(c, "attention", mixer, ffn, lambda i: i >= first) | _mtp(c)


def _mtp(c: Config) -> dict[str, Any]:
    modules = c.get("num_nextn_predict_layers") or 0
    return {"mtp": {"modules": modules, "layer": "E", "in_checkpoint": True}} if modules else {}


def _gpt_oss(c: Config) -> dict[str, Any]:
    ffn = moe(c, "intermediate_size", bias=True, router_bias=True, router_score="softmax")
    return windowed(c, ffn, 2, qkv_bias=True, o_bias=True, sinks=True)


def _gemma3(c: Config) -> dict[str, Any]:
    body = windowed(c, dense(c, activation="geglu"), c.get("sliding_window_pattern"), qk_norm="per_head")
    return body | {"norms_per_layer": SANDWICH}


def _gemma2(c: Config) -> dict[str, Any]:
    return windowed(c, dense(c, activation="geglu"), c.get("sliding_window_pattern")) | {"norms_per_layer": SANDWICH}


def _minimax(c: Config) -> dict[str, Any]:
    ffn = moe(c, "intermediate_size", router_score=c.get("scoring_func", "sigmoid"), router_selection_bias=bool(c.get("use_routing_bias")))
    return uniform(c, gqa(c, qk_norm="full_width" if c.get("use_qk_norm") else "none"), ffn)


def _falcon(c: Config) -> dict[str, Any]:
    newer = c.get("new_decoder_architecture", False)
    kv_heads = c.get("num_kv_heads") if newer else (1 if c.get("multi_query", True) else None)
    bias, parallel = c.get("bias", False), c.get("parallel_attn", True) or newer
    ffn = dense(c, c.get("ffn_hidden_size") or FFN_FACTOR * need(c, "d_model"), 2, bias, "gelu")
    norms = {"norm": "layernorm", "norms_per_layer": 2 if newer or not parallel else 1, "parallel_attention_ffn": parallel}
    return (
        uniform(c, gqa(c, kv_heads=kv_heads, qkv_bias=bias, o_bias=bias), ffn)
        | norms
        | {"tied_embeddings": c.get("tie_word_embeddings", True)}
    )


def _gptj(c: Config) -> dict[str, Any]:
    ffn = dense(c, c.get("n_inner") or FFN_FACTOR * need(c, "d_model"), 2, True, "gelu")
    return uniform(c, gqa(c), ffn) | {"norm": "layernorm", "norms_per_layer": 1, "parallel_attention_ffn": True, "lm_head_bias": True}


def _opt(c: Config) -> dict[str, Any]:
    ffn = dense(c, need(c, "ffn_dim"), 2, True, "relu")
    positions = need(c, "max_context") + 2
    tied = c.get("tie_word_embeddings", True)
    return uniform(c, gqa(c, qkv_bias=True, o_bias=True), ffn) | {
        "norm": "layernorm",
        "learned_positions": positions,
        "tied_embeddings": tied,
    }


def _bloom(c: Config) -> dict[str, Any]:
    ffn = dense(c, c.get("n_inner") or FFN_FACTOR * need(c, "d_model"), 2, True, "gelu")
    norms = {"norm": "layernorm", "embedding_norm": True, "tied_embeddings": c.get("tie_word_embeddings", True)}
    return uniform(c, gqa(c, qkv_bias=True, o_bias=True), ffn) | norms


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "llama": _llama, "mistral": _llama, "mixtral": _mixtral, "granite": _llama,
    "qwen2": _qwen2, "qwen3": _qwen3, "qwen2_moe": _qwen_moe, "qwen3_moe": _qwen_moe,
    "deepseek_v2": _deepseek, "deepseek_v3": _deepseek, "deepseek_v32": _deepseek, "kimi_k2": _deepseek, "glm_moe_dsa": _deepseek,
    "glm4_moe": _glm4_moe, "gpt_oss": _gpt_oss, "gemma2": _gemma2, "gemma3_text": _gemma3, "minimax_m2": _minimax, "phi3": _llama,
    "falcon": _falcon, "gptj": _gptj, "opt": _opt, "bloom": _bloom,
    "qwen3_next": hybrids.qwen3_next, "qwen3_5_moe_text": hybrids.qwen3_next, "llama4_text": hybrids.llama4,
    "nemotron_h": hybrids.nemotron_h, "jamba": hybrids.jamba,
}  # fmt: skip


def weight_format(c: Config) -> str:
    """Format of the weights as released, in this package's words."""
    quantised = c.get("quantization_config") or {}
    method = quantised.get("quant_method")
    if method == "fp8":
        return "fp8_block" if quantised.get("weight_block_size") else "fp8"
    if method in ("mxfp4", "modelopt_fp4", "nvfp4"):
        return "mxfp4" if method == "mxfp4" else "nvfp4"
    bits = quantised.get("bits") or quantised.get("w_bit")
    if bits:
        return f"int{bits}"
    if method:
        raise InputError(f"config.json: quantization_config.quant_method — found {method!r}, allowed fp8, mxfp4, nvfp4, or one with bits")
    return "fp32" if (c.get("torch_dtype") or c.get("dtype")) == "float32" else "bf16"


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    with (data_dir("hw_catalog") / DEFAULTS).open("rb") as file:
        return tomllib.load(file)


def architecture(c: Config) -> dict[str, Any]:
    """The ``[architecture]`` table of a parsed config. Raises InputError for an unknown ``model_type`` or a missing field."""
    kind = c.get("model_type")
    if kind not in FAMILIES and isinstance(c.get("text_config"), Mapping):
        inner = architecture({"quantization_config": c.get("quantization_config")} | dict(c["text_config"]))
        return inner | {"where": "; ".join(["text part only (text_config)", *([inner["where"]] if "where" in inner else [])])}
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"config.json: model_type — found {kind!r}, allowed {known}{closest(str(kind), FAMILIES)}")
    silent = {name: value for name, value in _defaults().get(kind, {}).items() if name not in c}
    c = silent | dict(c)
    note = {"where": f"by default of {kind}: {', '.join(silent)}"} if silent else {}
    base = note | {"n_layers": need(c, "n_layers"), "d_model": need(c, "d_model"), "vocab_size": need(c, "vocab_size")}
    context = first(c, SYNONYMS["max_context"])
    tied = flags(tied_embeddings=c.get("tie_word_embeddings", False))
    return base | flags(max_context=context) | tied | FAMILIES[kind](c) | {"weights": {"format": weight_format(c)}}


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_scalar(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if key.replace("-", "a").replace("_", "a").isalnum() and key.isascii() and key != "-" else json.dumps(key)


def toml_text(record: Mapping[str, Any]) -> str:
    """TOML of a model file: strings and numbers first, then the architecture with one line for each mixer, ffn and layer type.

    >>> print(toml_text({"id": "x", "architecture": {"n_layers": 1, "layer_types": {"-": {"ffn": "mlp"}}}}))
    id = "x"
    <BLANKLINE>
    [architecture]
    n_layers = 1
    <BLANKLINE>
    [architecture.layer_types]
    "-" = { ffn = "mlp" }
    <BLANKLINE>
    """
    lines = [f"{_key(k)} = {_scalar(v)}" for k, v in record.items() if k != "architecture"]
    arch = record["architecture"]
    tables = {k: v for k, v in arch.items() if k in ("mixers", "ffns", "layer_types")}
    lines += ["", "[architecture]", *(f"{_key(k)} = {_scalar(v)}" for k, v in arch.items() if k not in tables)]
    for name, table in tables.items():
        lines += ["", f"[architecture.{name}]", *(f"{_key(k)} = {_scalar(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def import_hf_config(path: str | Path) -> str:
    """TOML text of a model file from a Hugging Face ``config.json``; the id is the name of the model, or of its folder.

    Raises InputError for an unreadable file, an architecture that is not supported, or a missing field.
    """
    path = Path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: file — found no readable JSON ({problem}), allowed a Hugging Face config.json") from problem
    if not isinstance(config, Mapping):
        raise InputError(f"{path}: file — found a {type(config).__name__}, allowed a JSON object")
    try:
        table = architecture(config)
    except InputError as problem:
        raise InputError([p.replace("config.json:", f"{path}:", 1) for p in problem.problems]) from problem
    stem = path.stem if path.stem != "config" else path.resolve().parent.name
    name = str(config.get("_name_or_path") or stem).rstrip("/").split("/")[-1] or stem
    ident = re.sub(r"[.-]*-[.-]*", "-", re.sub(r"[^a-z0-9.]+", "-", name.lower())).strip("-.")
    note = {"source": path.name, "confidence": "read"}
    return toml_text({"id": ident or "imported-model", "name": name, "architecture": note | table})
