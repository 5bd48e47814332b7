"""Are the language models counted right? Against published counts, reference implementations, hand formulas, and themselves."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dse.catalog.huggingface import FAMILIES, architecture, import_hf_config
from dse.catalog.models import MAX_GROUPS, build_model, counts, pad_groups
from dse.errors import InputError
from dse.paths import data_dir

FILES = {path.stem: path for path in sorted((data_dir("hw_catalog") / "models").glob("*.toml"))}
RAW = {name: tomllib.loads(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
TOTAL = {"main": ("params",), "main+vision": ("params", "other_params"), "main+mtp": ("params", "mtp_params")}
ACTIVE = {"body": "active_body_params", "body+head": "active_params", "body+head+embedding": "active_params_with_embedding"}
# beyond 1 % (total) or 2 % (active), with the reason: the printed figure is rounded that far, or was cut instead of rounded
TOTAL_ROUNDED = {"kimi-k2", "kimi-k2.5", "gpt-4-like-1.8t"}
ACTIVE_ROUNDED = {"qwen3-next-80b-a3b", "qwen3.5-397b-a17b"}
ACTIVE_EXPLAINED = {"deepseek-v2-lite": "2.451B is a hair above what rounds to the printed 2.4B"}
WITHOUT_REFERENCE = {"qwen-72b", "palm-62b", "palm-540b", "gpt-4-like-1.8t", "seed-dense-1.6t", "seed-dense-500b"}


def test_the_catalogue_has_all_models():
    assert len(FILES) == 55
    assert {"llama-2-70b", "llama-3-8b", "llama-3-70b", "llama-3.1-405b", "deepseek-r1", "gpt-oss-120b", "mixtral-8x7b"} <= set(FILES)
    assert all(raw["id"] == name for name, raw in RAW.items())


@pytest.mark.parametrize("name", FILES)
def test_total_agrees_with_the_published_count(name: str):
    raw, n = RAW[name], counts(RAW[name])
    published = raw["published_params"]
    found = sum(n[part] for part in TOTAL[raw["total_counts"]])
    if name in TOTAL_ROUNDED:
        assert abs(found / published["value"] - 1) > 0.01  # else it does not belong on the list
        assert published["low"] <= found <= published["high"]
    else:
        assert found == pytest.approx(published["value"], rel=0.01)


@pytest.mark.parametrize("name", [name for name, raw in RAW.items() if "published_active_params" in raw])
def test_active_agrees_with_the_published_count(name: str):
    published = RAW[name]["published_active_params"]
    found = counts(RAW[name])[ACTIVE[RAW[name]["active_counts"]]]
    if name in ACTIVE_ROUNDED:
        assert abs(found / published["value"] - 1) > 0.02
        assert published["low"] <= found <= published["high"]
    elif name in ACTIVE_EXPLAINED:
        assert published["high"] < found < 1.025 * published["value"]
        assert RAW[name]["active_explanation"]
    else:
        assert found == pytest.approx(published["value"], rel=0.02)


def test_total_equals_the_modules_of_the_reference_implementation():
    compared = [name for name in FILES if "reference_params" in RAW[name]]
    assert set(FILES) - set(compared) == WITHOUT_REFERENCE
    for name in compared:
        assert counts(RAW[name])["params"] == RAW[name]["reference_params"]["value"], name


# hand formulas: layers x values x 2 bytes, straight from the published shapes
KV_BYTE = {
    "llama-2-7b": 32 * 2 * 32 * 128 * 2,
    "llama-2-70b": 80 * 2 * 8 * 128 * 2,
    "llama-3-70b": 80 * 2 * 8 * 128 * 2,
    "llama-3.1-405b": 126 * 2 * 8 * 128 * 2,
    "qwen2.5-72b": 80 * 2 * 8 * 128 * 2,
    "deepseek-v3": 61 * (512 + 64) * 2,
    "mixtral-8x7b": 32 * 2 * 8 * 128 * 2,
    "falcon-180b": 80 * 2 * 8 * 64 * 2,
    "gpt-3-175b": 96 * 2 * 96 * 128 * 2,
    "palm-540b": 118 * 2 * 1 * 256 * 2,
    "gpt-oss-120b": 18 * 2 * 8 * 64 * 2,  # the full half; the other sees 128 tokens
    "qwen3-next-80b-a3b": 12 * 2 * 2 * 256 * 2,  # one layer in four
    "nemotron-h-56b": 10 * 2 * 8 * 128 * 2,
}


@pytest.mark.parametrize("name", KV_BYTE)
def test_kv_bytes_of_a_token(name: str):
    assert counts(RAW[name])["kv_byte_per_token"] == KV_BYTE[name]


def test_kv_bytes_of_a_token_equal_the_published_ones():
    published = {name: raw["published_kv_byte_per_token"]["value"] for name, raw in RAW.items() if "published_kv_byte_per_token" in raw}
    assert published == {name: counts(RAW[name])["kv_byte_per_token"] for name in ("deepseek-v3", "llama-3.1-405b", "qwen2.5-72b")}


def test_windows_and_indexers_cache_apart():
    assert counts(RAW["gpt-oss-120b"])["kv_byte_per_token_window"] == 18 * 2 * 8 * 64 * 2
    assert counts(RAW["gemma-3-27b"])["kv_byte_per_token_window"] == 52 * 2 * 16 * 128 * 2
    assert counts(RAW["deepseek-v3.2"])["index_byte_per_token"] == 61 * 128 * 2
    assert counts(RAW["qwen3-next-80b-a3b"])["state_byte_per_sequence"] == 36 * (4 * 32 * 128 * 128 + 2 * 3 * (2 * 16 * 128 + 32 * 128))


def test_bytes_of_the_released_weights():
    # gpt-oss model card: checkpoints of 60.8 and 12.8 GiB
    assert counts(RAW["gpt-oss-120b"])["weight_byte"] / 2**30 == pytest.approx(60.8, abs=0.05)
    assert counts(RAW["gpt-oss-20b"])["weight_byte"] / 2**30 == pytest.approx(12.8, abs=0.05)
    assert counts(RAW["llama-3-70b"])["weight_byte"] == 2 * 70_553_706_496


@pytest.mark.parametrize("name", FILES)
def test_groups_hold_all_parameters(name: str):
    model = build_model(RAW[name])
    inside = sum(g.mixers * g.attention.params + g.ffns * (g.ffn.params + g.ffn.expert_params) for g in model.groups)
    assert inside + model.embedding_params == model.params == counts(RAW[name])["params"]
    assert 1 <= len(model.groups) <= MAX_GROUPS
    assert model.active_params == counts(RAW[name])["active_params"] <= model.params


@pytest.mark.parametrize("name", FILES)
def test_projections_of_the_groups_give_the_flop_of_a_token(name: str):
    """Two routes to the same number: shapes of the matrix products, and weights by role."""
    model, d = build_model(RAW[name]), RAW[name]["architecture"]["d_model"]
    flop = 2 * model.head_params
    for g in model.groups:
        a, f = g.attention, g.ffn
        projections = d * a.in_columns + a.up_rank * a.up_columns + a.latent_rank * a.latent_columns + a.out_rows * d
        feed = f.matrices * d * (f.width + f.experts_per_token * f.expert_width) + d * f.experts
        flop += g.mixers * (2 * projections + a.state_flop) + 2 * g.ffns * feed
    gates = sum(bool(f.get("shared_expert_gate")) for f in RAW[name]["architecture"]["ffns"].values())
    scalar_gates = gates * 2 * d * sum(g.ffns for g in model.groups)  # one column a layer, not a product of its own
    assert flop + scalar_gates == counts(RAW[name])["flop_per_token"]


def test_leaves_of_grouped_query_attention():
    (group,) = build_model(RAW["llama-3-70b"]).groups
    a = group.attention
    assert (group.mixers, group.ffns, group.syncs) == (80, 80, 2)
    assert (a.in_columns, a.out_rows, a.heads, a.kv_heads) == (64 * 128 + 2 * 8 * 128, 64 * 128, 64, 8)
    assert (a.kv_values, a.query_values, a.prefill_values) == (2048, 16384, 18432)
    assert a.decode_flop == a.prefill_flop == 4 * 64 * 128
    assert (a.window, a.window_mean, a.index_topk, a.scored, a.latent, a.in_sharded) == (1e9, 1, 1e9, 1, 0, 1)
    assert (group.ffn.width, group.ffn.matrices, group.ffn.experts) == (28672, 3, 0)


def test_leaves_of_latent_attention():
    first, second = build_model(RAW["deepseek-r1"]).groups
    a = second.attention
    assert (first.mixers, second.mixers) == (3, 58)
    assert (a.in_columns, a.up_rank, a.up_columns) == (1536 + 512 + 64, 1536, 128 * 192)
    assert (a.latent_rank, a.latent_columns, a.out_rows) == (512, 128 * 256, 128 * 128)
    assert (a.kv_heads, a.kv_values, a.query_values, a.prefill_values) == (1, 576, 128 * 1088, 128 * 640)
    assert (a.decode_flop, a.prefill_flop, a.latent, a.in_sharded) == (2 * 128 * 1088, 2 * 128 * 320, 1, 0)
    assert (first.ffn.width, first.ffn.experts) == (18432, 0)
    assert (second.ffn.width, second.ffn.experts, second.ffn.experts_per_token, second.ffn.expert_width) == (2048, 256, 8, 2048)


def test_leaves_of_windows_chunks_indexers_and_gates():
    sliding, full = (g.attention for g in build_model(RAW["gpt-oss-120b"]).groups)
    assert (sliding.window, sliding.window_mean, full.window) == (128, 1, 1e9)
    chunked = build_model(RAW["llama-4-scout"]).groups[0].attention
    assert (chunked.window, chunked.window_mean) == (8192, 0.5)
    indexed = build_model(RAW["deepseek-v3.2"]).groups[0].attention
    assert (indexed.index_topk, indexed.index_flop, indexed.index_values) == (2048, 2 * 64 * 128, 128)
    gated = build_model(RAW["qwen3-next-80b-a3b"]).groups[1].attention
    assert gated.in_columns == 2 * 16 * 256 + 2 * 2 * 256


def test_layers_of_single_halves_are_joined():
    mamba, attention = build_model(RAW["nemotron-h-56b"]).groups
    assert (mamba.mixers, mamba.ffns, attention.mixers, attention.ffns) == (54, 54, 10, 0)
    assert (mamba.attention.scored, attention.attention.scored) == (0, 1)
    assert mamba.attention.state_byte == 4 * 256 * 64 * 256 + 2 * 3 * (256 * 64 + 2 * 8 * 256)
    nano = build_model(RAW["nemotron-3-nano-30b-a3b"])
    assert [(g.mixers, g.ffns) for g in nano.groups] == [(23, 23), (6, 0)]


def test_parallel_halves_need_one_reduction():
    ones = {name for name, raw in RAW.items() if build_model(raw).groups[0].syncs == 1}
    assert ones == {"falcon-180b", "gpt-j-6b", "palm-62b", "palm-540b"}


def test_padding_changes_nothing_but_the_tree():
    model = build_model(RAW["llama-3-8b"])
    padded = pad_groups(model)
    assert len(padded.groups) == MAX_GROUPS and padded.groups[0] == model.groups[0]
    assert all(g.mixers == g.ffns == 0 for g in padded.groups[1:])


def test_seed_models_are_exactly_the_round_figures():
    big = build_model(RAW["seed-dense-1.6t"])
    assert (len(big.groups), big.groups[0].mixers) == (1, 20)
    assert big.params == big.active_params == 1.6e12 and big.embedding_params == big.head_params == 0
    n = counts(RAW["seed-dense-1.6t"])
    assert (n["flop_per_token"], n["weight_byte"]) == (3.2e12, 1.6e12) and n["weight_byte"] / 20 == 80e9
    for tp in (19, 20):  # 19 chips must fail by capacity, not by divisibility
        assert big.groups[0].attention.heads % tp == 0
    small = counts(RAW["seed-dense-500b"])
    assert (small["params"], small["flop_per_token"], small["weight_byte"]) == (500e9, 1e12, 1e12)
    assert 0 < n["kv_byte_per_token"] < 1e-7 * n["weight_byte"]


def test_gpt_4_like_reproduces_the_leaked_parts():
    group = build_model(RAW["gpt-4-like-1.8t"]).groups[0]
    assert group.ffn.expert_params * 120 / 16 == pytest.approx(111e9, rel=0.01)
    assert group.attention.params * 120 == pytest.approx(55e9, rel=0.02)


def broken(**changes) -> dict:
    raw = json.loads(json.dumps(RAW["mixtral-8x7b"]))
    raw["architecture"].update(changes)
    return raw


def test_every_mistake_of_an_architecture_is_named():
    ffn = {"kind": "moe", "experts": 8, "experts_per_token": 9, "expert_d_ff": 1, "matrices": 3}
    mixer = {"kind": "gqa", "heads": 32, "kv_head": 8, "head_dim": "128"}
    with pytest.raises(InputError) as caught:
        build_model(broken(mixers={"attention": mixer}, ffns={"moe": ffn}, layer_pattern=[[31, "E"], [1, "X"]]))
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for part in (
        "kv_head ",
        "did you mean 'kv_heads'",
        "kv_heads — missing",
        "head_dim — found '128'",
        "experts_per_token — found 9",
        "found X",
    ):
        assert part in text
    assert all(line.startswith("mixtral-8x7b: architecture") for line in caught.value.problems)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"n_layers": 31}, "found 32 layers"),
        ({"n_layers": 32.0}, "allowed a whole number"),
        ({"d_model": True}, "allowed a whole number"),
        ({"norm": "rms_norm"}, "did you mean 'rmsnorm'"),
        ({"windows": 3}, "unknown field"),
        ({"weights": {"format": "fp88"}}, "mixtral-8x7b: architecture.weights.format"),
        ({"layer_pattern": [32, "E"]}, "layer_pattern"),
        ({"layer_types": {"E": {"mixer": "atention", "ffn": "moe"}}}, "did you mean 'attention'"),
    ],
)
def test_one_mistake(changes: dict, part: str):
    with pytest.raises(InputError, match=part):
        build_model(broken(**changes))


LLAMA_3_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    "attention_bias": False, "torch_dtype": "bfloat16", "_name_or_path": "meta-llama/Meta-Llama-3-70B",
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "vocab_size": 129280, "q_lora_rank": 1536, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256, "num_experts_per_tok": 8,
    "n_shared_experts": 1, "first_k_dense_replace": 3, "moe_layer_freq": 1, "scoring_func": "sigmoid", "n_group": 8, "topk_group": 4,
    "num_nextn_predict_layers": 1, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
GPT_OSS_120B = {
    "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088, "num_local_experts": 128, "num_experts_per_tok": 4,
    "sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 18, "quantization_config": {"quant_method": "mxfp4"},
}  # fmt: skip
QWEN3_30B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "num_experts": 128,
    "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
QWEN25_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "use_sliding_window": False, "sliding_window": 131072,
}  # fmt: skip
GEMMA_3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 262208, "sliding_window": 1024, "sliding_window_pattern": 6,
    },
}  # fmt: skip
GPT_J = {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "vocab_size": 50400, "n_positions": 2048, "n_inner": None}
OPT_175B = {
    "model_type": "opt", "hidden_size": 12288, "ffn_dim": 49152, "num_hidden_layers": 96, "num_attention_heads": 96, "vocab_size": 50272,
    "max_position_embeddings": 2048,
}  # fmt: skip
BLOOM = {"model_type": "bloom", "hidden_size": 14336, "n_layer": 70, "n_head": 112, "vocab_size": 250880}
FALCON_180B = {
    "model_type": "falcon", "hidden_size": 14848, "num_hidden_layers": 80, "num_attention_heads": 232, "num_kv_heads": 8,
    "new_decoder_architecture": True, "parallel_attn": True, "bias": False, "vocab_size": 65024, "tie_word_embeddings": False,
}  # fmt: skip
CONFIGS = {
    "llama-3-70b": LLAMA_3_70B, "mixtral-8x7b": MIXTRAL, "deepseek-v3": DEEPSEEK_V3, "gpt-oss-120b": GPT_OSS_120B,
    "qwen3-30b-a3b": QWEN3_30B, "qwen2.5-7b": QWEN25_7B, "gemma-3-27b": GEMMA_3_27B, "gpt-j-6b": GPT_J, "opt-175b": OPT_175B,
    "bloom-176b": BLOOM, "falcon-180b": FALCON_180B,
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_imported_config_counts_like_the_shipped_entry(name: str, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    imported = tomllib.loads(import_hf_config(path))
    ours, shipped = counts(imported), counts(RAW[name])
    ours["other_params"] = shipped["other_params"]  # vision towers are not read
    if "quantised_part" in RAW[name]["architecture"]["weights"]:
        ours["weight_byte"] = shipped["weight_byte"]  # which part is quantised is not in these fields
    assert ours == shipped
    assert build_model(imported).groups == build_model(RAW[name]).groups
    assert imported["architecture"]["weights"]["format"] == RAW[name]["architecture"]["weights"]["format"]


def test_import_names_the_model(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_3_70B), encoding="utf-8")
    assert tomllib.loads(import_hf_config(path))["id"] == "meta-llama-3-70b"
    path.write_text(json.dumps(MIXTRAL), encoding="utf-8")
    assert tomllib.loads(import_hf_config(path))["name"] == tmp_path.name


def test_an_imported_file_is_an_overlay_of_the_catalogue(tmp_path: Path):
    from dse.catalog import load_catalog

    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_70B | {"_name_or_path": "me/My--Own_Llama.v2"}), encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text(import_hf_config(tmp_path / "config.json"), encoding="utf-8")
    catalog = load_catalog()
    assert catalog.resolve("models", str(file)) == "my-own-llama.v2"
    assert catalog.models["my-own-llama.v2"].params == counts(RAW["llama-3-70b"])["params"]


def test_import_refuses_what_it_does_not_know(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_3_70B | {"model_type": "lama"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"model_type — found 'lama'.*did you mean 'llama'"):
        import_hf_config(path)
    path.write_text(json.dumps({k: v for k, v in MIXTRAL.items() if k != "num_local_experts"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: num_local_experts — missing"):
        import_hf_config(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="no readable JSON"):
        import_hf_config(path)
    with pytest.raises(InputError, match="model_type — found None"):
        architecture({})
    assert len(FAMILIES) >= 18


def test_names_are_unique_over_all_models():
    names = [alias.lower() for raw in RAW.values() for alias in [raw["id"], *raw["aliases"]]]
    assert len(names) == len(set(names))


def test_loader_builds_every_model():
    from dse.catalog import load_catalog

    catalog = load_catalog()
    for name in catalog.models:
        assert catalog.models[name].params > 0
    assert catalog.resolve("models", "DSR1") == "deepseek-r1"
    assert catalog.resolve("models", "meta-llama/Meta-Llama-3-70B") == "llama-3-70b"
