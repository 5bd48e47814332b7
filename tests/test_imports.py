"""Hybrids and mixed stacks from their config.json: the same counts as the shipped entries, or as their makers print."""

from __future__ import annotations

import json
import tomllib

import jax
import pytest

import dse
from dse.catalog.huggingface import import_hf_config
from dse.catalog.models import build_model, counts
from dse.errors import InputError
from dse.paths import data_dir
from dse.types import Layout, Workload

QWEN3_NEXT = {
    "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2,
    "head_dim": 256, "vocab_size": 151936, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512, "num_experts_per_tok": 10,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "decoder_sparse_step": 1, "intermediate_size": 5120,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN35 = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        **QWEN3_NEXT, "model_type": "qwen3_5_moe_text", "hidden_size": 4096, "num_hidden_layers": 60, "num_attention_heads": 32,
        "vocab_size": 248320, "linear_num_value_heads": 64, "moe_intermediate_size": 1024, "shared_expert_intermediate_size": 1024,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 15,
    },
}  # fmt: skip
NEMOTRON_H = {
    "model_type": "nemotron_h", "hidden_size": 8192, "num_hidden_layers": 118, "vocab_size": 131072, "num_attention_heads": 64,
    "num_key_value_heads": 8, "attention_head_dim": 128, "intermediate_size": 32768, "mamba_num_heads": 256, "mamba_head_dim": 64,
    "ssm_state_size": 256, "n_groups": 8, "conv_kernel": 4, "use_conv_bias": True,
    "hybrid_override_pattern": "M-M-M-M*" + "-M-M-M-M-M*" * 9 + "-M-M-M-M-M-",
}  # fmt: skip
NEMOTRON_NANO = {
    "model_type": "nemotron_h", "hidden_size": 2688, "num_hidden_layers": 52, "vocab_size": 131072, "num_attention_heads": 32,
    "num_key_value_heads": 2, "head_dim": 128, "mamba_num_heads": 64, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8,
    "conv_kernel": 4, "n_routed_experts": 128, "num_experts_per_tok": 6, "moe_intermediate_size": 1856, "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 3712, "hybrid_override_pattern": "MEMEM*" + "EMEMEM*" * 4 + "EMEMEMEM*EMEMEMEME",
}  # fmt: skip
MAVERICK = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 202048, "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_local_experts": 128,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attention_chunk_size": 8192, "use_qk_norm": False,
        "no_rope_layers": [1, 1, 1, 0] * 12,
    },
}  # fmt: skip
SCOUT = {
    "model_type": "llama4",
    "text_config": {
        **MAVERICK["text_config"], "num_local_experts": 16, "interleave_moe_layer_step": 1, "use_qk_norm": True, "no_rope_layers": [],
    },
}  # fmt: skip
MINIMAX = {
    "model_type": "minimax_m2", "hidden_size": 3072, "num_hidden_layers": 62, "num_attention_heads": 48, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 200064, "intermediate_size": 1536, "num_local_experts": 256, "num_experts_per_tok": 8,
    "use_qk_norm": True, "use_routing_bias": True, "scoring_func": "sigmoid",
}  # fmt: skip
GEMMA_3 = {  # as released: what equals the class' defaults is left out
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    },
}  # fmt: skip
SHIPPED = {
    "qwen3-next-80b-a3b": QWEN3_NEXT, "qwen3.5-397b-a17b": QWEN35, "nemotron-h-56b": NEMOTRON_H, "nemotron-3-nano-30b-a3b": NEMOTRON_NANO,
    "llama-4-maverick": MAVERICK, "llama-4-scout": SCOUT, "minimax-m2": MINIMAX, "gemma-3-27b": GEMMA_3,
}  # fmt: skip
JAMBA = {
    "model_type": "jamba", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 65536, "num_experts": 16, "num_experts_per_tok": 2, "mamba_dt_rank": 256,
}  # fmt: skip
JAMBA_LARGE = JAMBA | {
    "hidden_size": 8192, "intermediate_size": 24576, "num_hidden_layers": 72, "num_attention_heads": 64, "mamba_dt_rank": 512
}  # fmt: skip
GEMMA_2 = {
    "model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46, "num_attention_heads": 32,
    "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 256000,
}  # fmt: skip
PHI_3 = {
    "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32064, "sliding_window": 2047,
}  # fmt: skip
PRINTED = {  # parameters and active parameters as their makers state them [1e9]
    "jamba": (JAMBA, 52.0, 12.0), "jamba-1.5-large": (JAMBA_LARGE, 398.0, 94.0), "gemma-2-27b": (GEMMA_2, 27.2, None),
    "phi-3-mini": (PHI_3, 3.8, None),
}  # fmt: skip
APART = ("mtp_params", "other_params", "weight_byte")  # not in these fields of a config


def imported(config, folder):
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tomllib.loads(import_hf_config(folder / "config.json"))


@pytest.mark.parametrize("name", SHIPPED)
def test_an_imported_hybrid_counts_like_the_shipped_entry(name, tmp_path):
    ours = imported(SHIPPED[name], tmp_path)
    shipped = tomllib.loads((data_dir("hw_catalog") / "models" / f"{name}.toml").read_text(encoding="utf-8"))
    assert {k: v for k, v in counts(ours).items() if k not in APART} == {k: v for k, v in counts(shipped).items() if k not in APART}
    assert build_model(ours).groups == build_model(shipped).groups


@pytest.mark.parametrize("name", PRINTED)
def test_an_imported_model_counts_as_its_maker_prints(name, tmp_path):
    config, total, active = PRINTED[name]
    found = counts(imported(config, tmp_path))
    assert found["params"] == pytest.approx(total * 1e9, rel=0.01)
    assert active is None or found["active_params"] == pytest.approx(active * 1e9, rel=0.02)


def test_what_a_config_leaves_to_its_class_is_named(tmp_path):
    where = imported(GEMMA_3, tmp_path)["architecture"]["where"]
    assert "text part only" in where and "vocab_size" in where and "sliding_window_pattern" in where and "head_dim" not in where


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hybrid_override_pattern": "MX"}, "hybrid_override_pattern — found X, allowed M"),
        ({"hybrid_override_pattern": None}, "hybrid_override_pattern — missing"),
        ({"moe_latent_size": 1024}, "moe_latent_size"),
    ],
)
def test_a_row_of_layers_that_cannot_be_read_is_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        imported(NEMOTRON_H | change, tmp_path)


def test_a_state_space_hybrid_caches_its_attention_layers_and_its_states(tmp_path):
    """Jamba by hand: 4 layers with 8 heads of 128, 28 states of 8192 x 16 in fp32 and three inputs of a convolution in bf16."""
    model = build_model(imported(JAMBA, tmp_path))
    kv, state = 4 * 2 * 8 * 128 * 2, 28 * (8192 * 16 * 4 + 8192 * 3 * 2)
    assert counts(imported(JAMBA, tmp_path))["kv_byte_per_token"] == kv
    cat = dse.load_catalog()
    d = dse.Deployment(
        chip=cat.chips["nvidia-h200-sxm"],
        model=model,
        workload=Workload(input_tokens=100_000.0, output_tokens=1.0),
        layout=Layout(batch=4.0),
        prices=cat.prices["owner-2026"],
        serving="decode",
    )
    with jax.disable_jit():
        m = dse.evaluate(d)
    assert float(m.memory_byte_per_chip.kv) == pytest.approx(4 * (100_000 * kv + state))
    assert float(m.tpot_s) > 0
