"""A language model: layers of a kind, and how many of each."""

from __future__ import annotations

from dse.types.base import Number, pytree
from dse.types.formats import Format


@pytree()
class Attention:
    """Token mixer of a layer, as numbers: MHA, GQA, MQA, MLA, windows and linear layers differ in values, not in code."""

    in_columns: Number  # columns of the first projection (q, k, v; with MLA: compressed q and kv)
    in_sharded: Number  # 1: tensor parallelism splits them; 0: every rank computes them (MLA)
    up_rank: Number | None  # rows of the query up-projection (0 or None: none)
    up_columns: Number
    latent_rank: Number | None  # rows of the KV up-projection (0 or None: none)
    latent_columns: Number
    out_rows: Number  # rows of the output projection
    heads: Number
    kv_heads: Number  # KV heads = how far tensor parallelism can split the cache
    kv_values: Number  # values cached for one token in one layer
    query_values: Number  # query and output values of one token
    prefill_values: Number  # q, k, v, o values of one token as prefill moves them
    decode_flop: Number  # FLOP per token and cached token
    prefill_flop: Number
    window: Number  # tokens attended to at most (huge: all)
    window_mean: Number  # mean filled share of the window (1 sliding, 0.5 chunked)
    index_topk: Number  # tokens chosen by a sparse-attention indexer (huge: none)
    index_flop: Number  # indexer FLOP per token and cached token
    index_values: Number  # indexer values cached for a token
    state_byte: Number  # recurrent state of one sequence in one layer
    state_flop: Number  # per token
    latent: Number  # 1 for MLA, else 0 (selects the attention constants)
    scored: Number  # 1 if scores are computed, 0 for linear and absent mixers
    params: Number  # weights of this mixer in one layer, for memory


@pytree()
class FeedForward:
    """Feed-forward of a layer: a dense part (also shared experts) and routed experts."""

    width: Number | None  # of the dense part (shared experts: all together); 0 or None: none
    matrices: Number  # 3 with a gate, 2 without
    experts: Number | None  # routed experts; 0 or None: none
    experts_per_token: Number
    expert_width: Number
    expert_params: Number  # weights of all routed experts of one layer
    params: Number  # weights of the rest of the feed-forward in one layer (dense part, router)
    groups: Number | None = None  # into which the router sorts the experts; None, or 1: no limit
    groups_per_token: Number | None = None  # of which a token uses experts at most


@pytree()
class LayerGroup:
    """A number of identical layers."""

    mixers: Number  # how many layers of the group have the mixer
    ffns: Number  # how many have the feed-forward
    attention: Attention
    ffn: FeedForward
    syncs: Number  # tensor-parallel reductions in one layer (2; 1 where attention and feed-forward run side by side)


@pytree()
class LLM:
    """A language model: up to four groups of identical layers, and what surrounds them."""

    d_model: Number
    vocab: Number
    params: Number  # all
    active_params: Number  # multiplied for one token, output head included
    embedding_params: Number  # embedding and output head (once if tied)
    head_params: Number  # output head as multiplied
    native: Format  # the format of release
    groups: tuple[LayerGroup, ...]
