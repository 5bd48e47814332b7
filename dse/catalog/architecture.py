"""How many weights has each part of a language model? Reads and checks the ``[architecture]`` table of a model file.

An architecture is plain structured numbers: named mixers (token mixing) and ffns (feed-forwards), layer types made of one of
each, and a pattern of layer types. ``problems_of`` checks it, ``mixer_weights`` and ``ffn_weights`` count it, by role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dse.errors import closest

Table = Mapping[str, Any]

WINDOWS = ("sliding", "chunked")
QK_NORMS = ("none", "per_head", "full_width", "l2_without_weights")
NORMS = {"none": 0, "rmsnorm": 1, "layernorm": 2, "layernorm_without_bias": 1}  # vectors of d_model in one norm
SCALARS_PER_HEAD = 3  # Mamba-2: decay A, skip D, bias of the step dt
QUANTISED = ("none", "routed_experts", "layer_matrices")

# field -> what it must be: an int is the least allowed whole number, a tuple the allowed words, a type that type
_ATTENTION: dict[str, Any] = {"heads": 1, "kv_heads": 1, "head_dim": 1}
_ATTENTION_OPTIONAL: dict[str, Any] = {
    "v_head_dim": 1, "window": 1, "window_kind": WINDOWS, "qk_norm": QK_NORMS,
    "qkv_bias": bool, "o_bias": bool, "output_gate": bool, "sinks": bool,
}  # fmt: skip
MIXER_FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mha": (_ATTENTION, _ATTENTION_OPTIONAL),
    "gqa": (_ATTENTION, _ATTENTION_OPTIONAL),
    "mqa": (_ATTENTION, _ATTENTION_OPTIONAL),
    "mla": (
        {"heads": 1, "kv_lora_rank": 1, "qk_nope_head_dim": 1, "qk_rope_head_dim": 0, "v_head_dim": 1},
        {"q_lora_rank": 1, "indexer": dict},
    ),
    "gated_deltanet": ({"key_heads": 1, "value_heads": 1, "key_head_dim": 1, "value_head_dim": 1, "conv_kernel": 1}, {}),
    "mamba": (
        {"width": 1, "state_size": 1, "dt_rank": 1, "conv_kernel": 1},
        {"conv_bias": bool, "proj_bias": bool, "inner_norms": bool},
    ),
    "mamba2": ({"heads": 1, "head_dim": 1, "state_size": 1, "groups": 1, "conv_kernel": 1}, {"conv_bias": bool}),
}
INDEXER_FIELDS: dict[str, Any] = {"heads": 1, "head_dim": 1, "topk": 1}
FFN_FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": ({"d_ff": 1, "matrices": 2}, {"bias": bool, "activation": str}),
    "moe": (
        {"experts": 1, "experts_per_token": 1, "expert_d_ff": 1, "matrices": 2},
        {
            "shared_experts": 0, "shared_expert_d_ff": 0, "shared_expert_gate": bool, "bias": bool, "router_bias": bool, "activation": str,
            "router_score": str, "router_groups": 1, "router_topk_groups": 1, "router_selection_bias": bool,
        },
    ),
}  # fmt: skip
ARCHITECTURE_FIELDS: tuple[dict[str, Any], dict[str, Any]] = (
    {"n_layers": 1, "d_model": 1, "vocab_size": 0, "mixers": dict, "ffns": dict, "layer_types": dict, "layer_pattern": list},
    {
        "max_context": 1, "position": str, "learned_positions": 0, "norm": tuple(NORMS), "norms_per_layer": 0,
        "tied_embeddings": bool, "lm_head_bias": bool, "embedding_norm": bool, "parallel_attention_ffn": bool,
        "mtp": dict, "other_params": dict, "weights": dict,
        "source": str, "where": str, "also": list, "confidence": str, "recalled_fields": list,
    },
)  # fmt: skip
WEIGHTS_FIELDS: tuple[dict[str, Any], dict[str, Any]] = (
    {"format": str},
    {"detail": str, "quantised_part": QUANTISED, "quantised_bits": float, "other_bits": float},
)
MTP_FIELDS: tuple[dict[str, Any], dict[str, Any]] = ({"modules": 1, "layer": str}, {"in_checkpoint": bool, "note": str})


@dataclass(frozen=True)
class Weights:
    """Numbers of weights of one half of a layer, by role."""

    matrix: int = 0  # multiplied for every token
    gate: int = 0  # small matrices that stay in 16 bit when the others are quantised (routers, gates)
    routed: int = 0  # matrices of all routed experts
    routed_small: int = 0  # biases of all routed experts
    small: int = 0  # norms, biases, scalars of a head
    conv: int = 0  # short convolutions


def total(w: Weights, routed_share: float = 1.0) -> float:
    """Sum of all roles [1]; ``routed_share`` is the share of the routed experts that one token uses."""
    return w.matrix + w.gate + w.small + w.conv + routed_share * (w.routed + w.routed_small)


def attention_weights(m: Table, d: int) -> Weights:
    """MHA, GQA, MQA: d(gHe + Ke + Kv) + Hv d, g = 2 with an output gate; biases, norms of q and k, one sink scalar a head."""
    v = m.get("v_head_dim", m["head_dim"])
    q_out, k_out, v_out = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"], m["kv_heads"] * v
    gates = 2 if m.get("output_gate") else 1
    norm = {"per_head": 2 * m["head_dim"], "full_width": q_out + k_out}.get(m.get("qk_norm", "none"), 0)
    small = norm + (q_out + k_out + v_out if m.get("qkv_bias") else 0) + (d if m.get("o_bias") else 0)
    small += m["heads"] if m.get("sinks") else 0
    return Weights(matrix=d * (gates * q_out + k_out + v_out) + m["heads"] * v * d, small=small)


def mla_weights(m: Table, d: int) -> Weights:
    """Multi-head latent attention, with the projections of a sparse-attention indexer where there is one."""
    heads, rank, query_rank = m["heads"], m["kv_lora_rank"], m.get("q_lora_rank", 0)
    qk = m["qk_nope_head_dim"] + m["qk_rope_head_dim"]
    matrix = d * query_rank + query_rank * heads * qk if query_rank else d * heads * qk
    matrix += d * (rank + m["qk_rope_head_dim"]) + rank * heads * (m["qk_nope_head_dim"] + m["v_head_dim"]) + heads * m["v_head_dim"] * d
    gate, small = 0, query_rank + rank
    if index := m.get("indexer"):
        matrix += (query_rank or d) * index["heads"] * index["head_dim"] + d * index["head_dim"]
        gate, small = d * index["heads"], small + 2 * index["head_dim"]
    return Weights(matrix=matrix, gate=gate, small=small)


def deltanet_weights(m: Table, d: int) -> Weights:
    """Gated delta net: q, k, v and gate projections, two scalars a value head, short convolution, output."""
    key, value = m["key_heads"] * m["key_head_dim"], m["value_heads"] * m["value_head_dim"]
    return Weights(
        matrix=d * (2 * key + 2 * value) + value * d,
        gate=d * 2 * m["value_heads"],
        small=2 * m["value_heads"] + m["value_head_dim"],
        conv=(2 * key + value) * m["conv_kernel"],
    )


def mamba2_weights(m: Table, d: int) -> Weights:
    """Mamba-2: one input projection (x, gate, B, C, dt), short convolution over x, B, C, three scalars a head, norm, output."""
    inner = m["heads"] * m["head_dim"]
    conv = inner + 2 * m["groups"] * m["state_size"]
    small = SCALARS_PER_HEAD * m["heads"] + inner + (conv if m.get("conv_bias") else 0)
    return Weights(matrix=d * (inner + conv + m["heads"]) + inner * d, small=small, conv=conv * m["conv_kernel"])


def mamba_weights(m: Table, d: int) -> Weights:
    """Mamba: input projection (x, gate), short convolution, projection to step, B and C, step projection, decay and skip, output."""
    width, chosen = m["width"], m["dt_rank"] + 2 * m["state_size"]
    small = 2 * width + width * m["state_size"]  # bias of the step, skip; decay of each cell
    small += (width if m.get("conv_bias") else 0) + (2 * width + d if m.get("proj_bias") else 0) + (chosen if m.get("inner_norms") else 0)
    return Weights(matrix=3 * d * width + width * chosen + m["dt_rank"] * width, small=small, conv=width * m["conv_kernel"])


def mixer_weights(m: Table, d: int) -> Weights:
    """Weights of one token mixer in one layer of width ``d``, without norms of the layer."""
    by_kind = {"mla": mla_weights, "gated_deltanet": deltanet_weights, "mamba": mamba_weights, "mamba2": mamba2_weights}
    return by_kind.get(m["kind"], attention_weights)(m, d)


def ffn_weights(f: Table, d: int) -> Weights:
    """Weights of one feed-forward in one layer of width ``d``, without norms of the layer."""
    m = f["matrices"]
    if f["kind"] == "dense":
        return Weights(matrix=m * d * f["d_ff"], small=(m - 1) * f["d_ff"] + d if f.get("bias") else 0)
    expert_bias = (m - 1) * f["expert_d_ff"] + d if f.get("bias") else 0
    return Weights(
        matrix=m * d * shared_width(f),
        gate=d * f["experts"] + (d if f.get("shared_expert_gate") else 0),
        routed=f["experts"] * m * d * f["expert_d_ff"],
        routed_small=f["experts"] * expert_bias,
        small=f["experts"] if f.get("router_bias") else 0,
    )


def shared_width(f: Table) -> int:
    """Width of all shared experts of a mixture together."""
    return f.get("shared_experts", 0) * f.get("shared_expert_d_ff", 0)


def norm_width(arch: Table) -> int:
    """Weights of one norm over the model width."""
    return NORMS[arch.get("norm", "rmsnorm")] * arch["d_model"]


def layer_norms(arch: Table, layer: Table) -> tuple[int, int]:
    """Norms of a layer that belong to its mixer and to its feed-forward (a shared norm is the mixer's)."""
    norms = arch.get("norms_per_layer", 2)
    if not layer.get("ffn"):
        return norms, 0
    if not layer.get("mixer"):
        return 0, norms
    return norms - norms // 2, norms // 2


def letters(arch: Table) -> str:
    """One letter a layer, in order.

    >>> letters({"layer_pattern": [[1, "D"], [2, "LF"]]})
    'DLFLF'
    """
    return "".join(text * repeat for repeat, text in arch["layer_pattern"])


def _problem(found: Any, rule: Any) -> str:
    """What is wrong with one value, or an empty string."""
    if isinstance(rule, tuple):
        return "" if found in rule else f"found {found!r}, allowed {', '.join(rule)}{closest(str(found), rule)}"
    if rule is float:
        return (
            ""
            if isinstance(found, int | float) and not isinstance(found, bool) and found > 0
            else f"found {found!r}, allowed a number above 0"
        )
    if isinstance(rule, type):
        return "" if isinstance(found, rule) else f"found {found!r}, allowed a {rule.__name__}"
    whole = isinstance(found, int) and not isinstance(found, bool) and found >= rule
    return "" if whole else f"found {found!r}, allowed a whole number from {rule}"


def _check(table: Any, fields: tuple[dict[str, Any], dict[str, Any]], where: str) -> list[str]:
    if not isinstance(table, Mapping):
        return [f"{where} — found {table!r}, allowed a table"]
    required, optional = fields
    known = required | optional
    out = [f"{where}.{name} — missing, allowed {_words(rule)}" for name, rule in required.items() if name not in table]
    for name, found in table.items():
        if name not in known:
            out.append(f"{where}.{name} — found an unknown field, allowed {', '.join(known)}{closest(name, known)}")
        elif text := _problem(found, known[name]):
            out.append(f"{where}.{name} — {text}")
    return out


def _words(rule: Any) -> str:
    if isinstance(rule, tuple):
        return ", ".join(rule)
    return f"a {rule.__name__}" if isinstance(rule, type) else f"a whole number from {rule}"


def _check_part(part: Any, kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]], where: str) -> list[str]:
    kind = part.get("kind") if isinstance(part, Mapping) else None
    if kind not in kinds:
        return [f"{where}.kind — found {kind!r}, allowed {', '.join(kinds)}{closest(str(kind), kinds)}"]
    out = _check({k: v for k, v in part.items() if k != "kind"}, kinds[kind], where)
    if "indexer" in part:
        out += _check(part["indexer"], (INDEXER_FIELDS, {}), f"{where}.indexer")
    if not out and "kv_heads" in part and part["heads"] % part["kv_heads"]:
        out.append(f"{where}.kv_heads — found {part['kv_heads']}, allowed a divisor of heads = {part['heads']}")
    if not out and kind == "moe" and part["experts_per_token"] > part["experts"]:
        out.append(f"{where}.experts_per_token — found {part['experts_per_token']}, allowed at most experts = {part['experts']}")
    return out


def _check_layers(arch: Table, where: str) -> list[str]:
    out, types = [], arch["layer_types"]
    for letter, layer in types.items():
        for role, parts in (("mixer", "mixers"), ("ffn", "ffns")):
            name = layer.get(role)
            if name is not None and name not in arch[parts]:
                out.append(
                    f"{where}.layer_types.{letter}.{role} — found {name!r}, allowed {', '.join(arch[parts])}{closest(name, arch[parts])}"
                )
    try:
        text = letters(arch)
    except (TypeError, ValueError):
        return [*out, f"{where}.layer_pattern — found {arch['layer_pattern']!r}, allowed pairs such as [[12, 'LLLF']]"]
    if unknown := sorted(set(text) - set(types)):
        out.append(f"{where}.layer_pattern — found {', '.join(unknown)}, allowed the letters of layer_types: {', '.join(types)}")
    if len(text) != arch["n_layers"]:
        out.append(f"{where}.layer_pattern — found {len(text)} layers, allowed n_layers = {arch['n_layers']}")
    return out


def problems_of(arch: Table, where: str = "architecture") -> list[str]:
    """Every mistake of an architecture table, one line each, each beginning with ``where``."""
    out = _check(arch, ARCHITECTURE_FIELDS, where)
    if out:
        return out
    for name, mixer in arch["mixers"].items():
        out += _check_part(mixer, MIXER_FIELDS, f"{where}.mixers.{name}")
    for name, ffn in arch["ffns"].items():
        out += _check_part(ffn, FFN_FIELDS, f"{where}.ffns.{name}")
    if "weights" in arch:
        out += _check(arch["weights"], WEIGHTS_FIELDS, f"{where}.weights")
    if "mtp" in arch:
        out += _check(arch["mtp"], MTP_FIELDS, f"{where}.mtp")
    return out + _check_layers(arch, where)
