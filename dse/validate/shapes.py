"""What work does one measured row describe? From the columns of a row to the arguments of an operator equation.

A ``Case`` names the equation, the constants and the format, and holds the sizes; it never looks at the measured value or at what
derives from it. A row that no equation describes raises ``Unpredictable`` with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dse.equations.collectives import domains_reached
from dse.equations.smooth import distinct
from dse.validate.precision import spelled

Row = Mapping[str, str]


class Unpredictable(Exception):
    """No equation describes this row; the message is the reason printed in ``skipped``."""


@dataclass(frozen=True)
class Case:
    """One measured operator: which equation, which constants, which sizes.

    ``work`` is what a rate divides by the time (FLOP or byte), 0 for a latency; ``also`` are operators that follow it in the same
    measurement.
    """

    equation: str
    constants: str  # path inside Kernels, such as "gemm.fp8"
    format: str  # arithmetic, by the name of a format
    sizes: Mapping[str, float]
    variant: str = ""  # implementation whose own constants are used where the catalogue has them
    work: float = 0.0
    also: tuple[Case, ...] = field(default=())


LAUNCHER = "pytorch"
NARROW_LATENT = ("B200", "GB200")  # their kernels compute on an fp8 latent cache in fp8: rows pass the bf16 peak; others widen it first
DEALT_ALL = 1e-9  # share of experts left idle when every one was dealt


def number(row: Row, column: str, default: float | None = None) -> float:
    """A column as a number; a blank one takes the default, or makes the row unpredictable."""
    text = (row.get(column) or "").strip()
    if text:
        try:
            return float(text)
        except ValueError as problem:
            raise Unpredictable(f"column {column} is not a number") from problem
    if default is None:
        raise Unpredictable(f"column {column} is blank")
    return default


def kernel_class(row: Row) -> str:
    """Class of kernel constants of the row's weight format."""
    text = row.get("precision_weights")
    found = spelled("weights", text)
    if found is None or not found.kernel:
        raise Unpredictable(f"weight format {text!r} has no kernel class")
    return found.kernel


def is_rate(row: Row) -> bool:
    """Whether the row's value is work over time rather than a time."""
    return row.get("unit", "").endswith("/s")


def launcher(row: Row) -> str:
    """``eager`` for kernels launched one by one from Python, else the engine."""
    return "eager" if "eager" in (row.get("software") or "") else engine(row)


def engine(row: Row) -> str:
    """First word of the software, in lower case: the family of kernels (trtllm, vllm, sglang, nccl ...)."""
    return re.split(r"[ /]", row.get("software") or "")[0].lower()


def kernels_of(row: Row) -> str:
    """Family of attention kernels: the engine's own; PyTorch launches those of others, and its rows name them.

    >>> kernels_of({"software": "PyTorch 2.11 (CUDA 13)", "note": "fastest of PyTorch's kernels: cudnn"})
    'cudnn'
    """
    named = re.search(r"kernels?: ([\w-]+)", row.get("note") or "")
    return named[1].lower() if named and engine(row) == LAUNCHER else engine(row)


def gemm(row: Row) -> Case:
    """``y[M, N] = x[M, K] w[K, N]``; ``groups`` matrices of weights share the rows in a grouped one."""
    m, n, k, groups = number(row, "m"), number(row, "n"), number(row, "k"), number(row, "groups", 1.0)
    kind = kernel_class(row)
    found = spelled("weights", row.get("precision_weights"))
    wide = found.byte if found else 1.0
    sizes = {"m": m, "n": n, "k": k, "weights": groups * wide}
    act = row.get("precision_act", "")
    if kind in ("fp8", "fp8_block", "nvfp4", "mxfp4", "int8") and act and "dynamic" not in act:
        sizes["prequantised"] = 1.0
    return Case("gemm", f"gemm.{kind}", kind, sizes, variant=launcher(row), work=2 * m * n * k if is_rate(row) else 0.0)


def repeated(row: Row) -> float:
    """Whether the same cache is read call after call: engines' benchmarks do, ours takes buffers in turn."""
    return float(engine(row) != LAUNCHER)


def attention_decode(row: Row) -> Case:
    """One new token of each sequence attends to its cache."""
    batch, context = number(row, "batch"), number(row, "context_len")
    heads, kv_heads, dim = number(row, "num_heads"), number(row, "num_kv_heads"), number(row, "head_dim")
    cache = 1.0 if row.get("precision_kv") == "fp8" else 2.0
    sizes = {
        "batch": batch,
        "context": context,
        "flop": 4 * batch * context * heads * dim,
        "kv_byte": 2 * batch * context * kv_heads * dim * cache,
        "query_byte": 4 * batch * heads * dim,
        "kv_heads": kv_heads,
        "repeated": repeated(row),
    }
    return Case("attention_decode", "decode_fp8" if cache == 1 else "decode", "bf16", sizes, variant=engine(row))


def attention_prefill(row: Row) -> Case:
    """Causal (or full) attention over whole prompts."""
    batch, prompt, heads, dim = (number(row, c) for c in ("batch", "seq_q", "num_heads", "head_dim"))
    kv_heads = number(row, "num_kv_heads", heads)
    share = 1.0 if row["op"].endswith("full") else 0.5
    sizes = {
        "prompt": prompt,
        "flop": 4 * batch * heads * prompt**2 * dim * share,
        "exponentials": batch * heads * prompt**2 * share,
        "moved_byte": 4 * batch * prompt * (heads + kv_heads) * dim,
        "written": 2 * batch * prompt * kv_heads * dim,
    }
    act8, kv8 = row.get("precision_act") == "fp8", row.get("precision_kv") == "fp8"
    variant = kernels_of(row) + ("-a8" if act8 else "")
    work = sizes["flop"] if is_rate(row) else 0.0
    return Case("attention_prefill", "prefill_fp8" if kv8 or act8 else "prefill", "fp8" if act8 else "bf16", sizes, variant, work)


def mla_sizes(row: Row) -> tuple[float, float, float, float, float]:
    """Batch, heads, latent and rope width, cache byte of a latent-attention row (widths default to those of DeepSeek-V3)."""
    cache = 1.0 if row.get("precision_kv") == "fp8" else 2.0
    return number(row, "batch"), number(row, "num_heads"), number(row, "kv_lora_rank", 512.0), number(row, "qk_rope_dim", 64.0), cache


def mla_decode(row: Row) -> Case:
    """Latent attention in absorbed form: scores over latent + rope, values over the latent."""
    batch, heads, latent, rope, cache = mla_sizes(row)
    context = number(row, "context_len")
    sizes = {
        "batch": batch,
        "context": context,
        "flop": 2 * batch * context * heads * (2 * latent + rope),
        "kv_byte": (latent + rope) * batch * context * cache,
        "query_byte": 2 * batch * heads * (2 * latent + rope),
        "kv_heads": 1.0,
        "repeated": repeated(row),
    }
    narrow = cache == 1 and row["chip"].startswith(NARROW_LATENT)
    return Case("attention_decode", "mla_decode", "fp8" if narrow else "bf16", sizes, variant="bf16" if cache > 1 else "fp8")


def mla_prefill(row: Row) -> Case:
    """Latent attention over a prompt, expanded to heads of 128 + 64 (keys) and 128 (values) numbers."""
    batch, heads, latent, rope, cache = mla_sizes(row)
    prompt, dim = number(row, "seq_q"), latent / 4
    sizes = {
        "prompt": prompt,
        "flop": batch * heads * prompt**2 * (2 * dim + rope),
        "exponentials": batch * heads * prompt**2 / 2,
        "moved_byte": 2 * batch * prompt * heads * (4 * dim + 2 * rope),
        "written": batch * prompt * (latent + rope),
    }
    return Case("attention_prefill", "mla_prefill", "bf16", sizes, variant="bf16" if cache > 1 else "fp8")


def flash_attention(row: Row) -> Case:
    """Forward pass of plain attention in a micro-benchmark whose batch and prompt stand in the note; the heads span 2048 columns."""
    found = re.search(r"batch (\d+), sequence (\d+)", row.get("note", ""))
    if not found:
        raise Unpredictable("batch and sequence are not in the note")
    batch, prompt = found.groups()
    dim = 64 if row["chip"].startswith("A100") else 128
    heads = 2048 // dim
    full = {"op": "full", "batch": batch, "seq_q": prompt, "num_heads": str(heads), "head_dim": str(dim)}
    return attention_prefill({**row, **full})


def dealt_tokens(tokens: float, experts: float, chosen: float, ep: float) -> float:
    """Independent tokens that would hit as many experts as balanced routing does, which deals experts out in turn: none twice before all
    were dealt, and at least one to the rank that is timed.

    >>> round(dealt_tokens(1.0, 256.0, 8.0, 1.0), 6), round(dealt_tokens(16.0, 256.0, 8.0, 1.0), 2)
    (1.0, 21.83)
    >>> round(dealt_tokens(0.0, 256.0, 8.0, 8.0), 6)  # the rank that is timed has an expert to run
    1.0
    """
    hit = min(max(tokens * chosen, ep), experts)
    missed = max(1.0 - hit / experts, DEALT_ALL)
    return math.log(missed) / math.log(1.0 - chosen / experts)


def experts(row: Row) -> Case:
    """Fused mixture-of-experts feed-forward of one rank."""
    kind = kernel_class(row)
    tokens, experts, chosen, ep = number(row, "tokens"), number(row, "num_experts"), number(row, "topk"), number(row, "moe_ep", 1.0)
    dealt = dealt_tokens(tokens, experts, chosen, ep)
    sizes = {
        "tokens": tokens,
        "hidden": number(row, "hidden_size"),
        "width": number(row, "inter_size") / number(row, "moe_tp", 1.0),
        "experts": experts,
        "per_token": chosen,
        "ep": ep,
        "uneven": 1.0 if row.get("routing", "").startswith("power_law") else 0.0,
        "distinct": dealt if row.get("routing") == "balanced" else max(tokens, dealt_tokens(0.0, experts, chosen, ep)),
    }
    return Case("experts", f"moe.{kind}", kind, sizes, variant=row.get("precision_weights", ""))


def collective_variant(row: Row) -> str:
    """How the collective is launched: inside a graph by an engine's own kernel, by plain NCCL, or eagerly from Python."""
    software = row.get("software", "").lower()
    if "vidur" in software:
        return "eager"
    if "custom" in software:
        return engine(row)
    if "rccl-tests" in software:
        return "rccl-tests"
    return "nccl-tests" if "tests" in software else "nccl"


def all_reduce(row: Row) -> Case:
    """All-reduce of ``msg_bytes`` on each rank; ranks beyond ``devices_per_node`` are reached over the scale-out network."""
    n = number(row, "n_chips")
    inside = min(n, number(row, "devices_per_node", n))
    variant = collective_variant(row)
    # a profiled server has one network card, and a flow fills half of it: inferred from the times
    sharing = max(inside / 2, 1.0) if variant == "eager" else 1.0
    sizes = {"n": n, "inside": inside, "size": number(row, "msg_bytes"), "sharing": sharing}
    return Case("all_reduce", "all_reduce", "bf16", sizes, variant=variant)


def exchange(row: Row) -> Case:
    """All-gather, reduce-scatter or all-to-all of a full buffer of ``msg_bytes``."""
    return Case("exchange", "all_gather", "bf16", {"n": number(row, "n_chips"), "size": number(row, "msg_bytes")}, variant=row["op"])


def send(row: Row) -> Case:
    """Point to point."""
    far = number(row, "devices_per_node", 2.0) < 2
    return Case("send", "point_to_point", "bf16", {"size": number(row, "msg_bytes"), "far": float(far)}, "eager")


INDEX_BYTE = 4.0  # of an index of a token or expert
MOST_NODES = 4.0  # groups, one a node, among which the router of these runs chooses
NODE_CHIPS = 8  # GPUs of a node of the published DeepEP runs: beyond it lies the InfiniBand network


def expert_exchange(row: Row) -> Case:
    """Dispatch of tokens to the ranks of their experts, or combination of what they return."""
    op, n, k = row["op"], number(row, "n_chips"), number(row, "topk")
    leg = "combine" if "combine" in op else "dispatch"
    in_engine = op.startswith("ep_alltoall")
    tokens, width = number(row, "tokens_per_rank"), number(row, "hidden_size")
    act = (row.get("precision_act") or "").split(" ")[0]
    low = leg == "dispatch" or op.endswith("low_precision")
    sent = spelled("values", act)
    value = (sent.byte if sent else 1.0) if low else 2.0
    software = row.get("software", "")
    kernel = "prepare" if op.endswith("prepare") else "two-sided" if "Two" in software else "one-sided"
    once = in_engine and not op.endswith("low_precision")  # that one packs every copy
    copies = min(n, k) if once else k  # the profiler deals experts out in turn: a token goes once to each of so many ranks
    own = INDEX_BYTE * tokens * k * n / (n - 1)  # each rank sorts its own list, however many there are
    size = own if op.endswith("prepare") else tokens * width * copies * value
    inside = n if in_engine else min(n, float(NODE_CHIPS))
    far = inside < n
    kernel += "-low" if op.endswith("low_precision") else ""
    normal = op.endswith("normal")
    own_kernel = "deepep-normal" if normal else "deepep-far" if far else "deepep"
    variant = f"trtllm-{kernel}" if in_engine else own_kernel
    near, counted = size * inside / n, size * (1 - inside / n if far else 1 - 1 / n)  # straight to the rank of the expert
    if normal:  # once to each node and there once to each rank; its bandwidth counts the node or rank where it stays as well
        nodes = n / inside
        near = tokens * width * value * float(distinct(n, k))
        size = tokens * width * value * float(domains_reached(nodes, k, nodes, min(nodes, MOST_NODES)))
        counted = size if far else near
    sizes = {"n": n, "inside": inside, "near_size": near, "far_size": size, "own_size": 2 * tokens * width * k}
    return Case("expert_exchange", leg, "bf16", sizes, variant, counted if is_rate(row) else 0.0)


ELEMENTWISE_VALUES = {"add": 3, "input_layernorm": 2, "attn_rope": 2, "mlp_act": 3, "gelu": 2, "softmax": 2, "layernorm": 2}


def elementwise(row: Row) -> Case:
    """A kernel that only moves values: the traffic of the shape (``bytes_min``), or that of an ``m`` by ``n`` tensor of 2 byte."""
    tensor = 2.0 * ELEMENTWISE_VALUES[row["op"]] * number(row, "m") * number(row, "n", 1.0)
    return Case("elementwise", "elementwise", "bf16", {"moved_byte": number(row, "bytes_min", tensor)}, variant=row["op"])


STREAM_BYTE = 1e9  # arrays far beyond any cache: the floor does not count


def stream(row: Row) -> Case:
    """Memory stream: bandwidth of large arrays."""
    return Case("elementwise", "elementwise", "bf16", {"moved_byte": STREAM_BYTE}, variant="stream", work=STREAM_BYTE)


def plain_gemm(m: float, n: float, k: float) -> Case:
    """A bf16 GEMM inside a larger measurement."""
    return Case("gemm", "gemm.bf16", "bf16", {"m": m, "n": n, "k": k, "weights": 1.0}, variant="eager")


def moved(values: float, kind: str = "gelu") -> Case:
    """An eager element-wise kernel that moves so many 2-byte values."""
    return Case("elementwise", "elementwise", "bf16", {"moved_byte": 2.0 * values}, variant=kind)


def layer_part(row: Row) -> Case:
    """Part of one dense transformer layer run eagerly with unfused attention; width and heads stand in the note."""
    found = re.search(r"d_model (\d+), (\d+) heads, FFN (\d+)x", row.get("note", ""))
    if not found:
        raise Unpredictable("d_model and heads are not in the note")
    d, heads, wide = (float(x) for x in found.groups())
    tp, batch, context = number(row, "tp"), number(row, "batch"), number(row, "context_len")
    new = number(row, "seq_q")
    t, h = batch * new, heads / tp
    scores = batch * h * new * context
    attention = replace(plain_gemm(batch * h * new, context, d / heads), sizes=batched(batch * h, new, context, d / heads))
    values = replace(attention, sizes=batched(batch * h, new, d / heads, context))
    reduce = Case("all_reduce", "all_reduce", "bf16", {"n": tp, "inside": tp, "size": 2 * t * d, "sharing": 1.0}, variant="nccl-tests")
    parts = {
        "Q_K_V": plain_gemm(t, 3 * d / tp, d),
        "Q_mul_K": attention,
        "A_mul_V": values,
        "Wo_proj": plain_gemm(t, d, d / tp),
        "W1_proj": plain_gemm(t, wide * d / tp, d),
        "W2_proj": plain_gemm(t, d, wide * d / tp),
        "Softmax": moved(2 * scores, "softmax"),
        "LayerNorm_MHA": moved(2 * t * d, "layernorm"),
        "LayerNorm_FFN": moved(2 * t * d, "layernorm"),
        "GeLU": moved(2 * t * wide * d / tp),
        "AllReduce_MHA": reduce,
        "AllReduce_FFN": reduce,
    }
    if row["op"] == "layer_total":
        first, *rest = parts.values()
        return replace(first, also=tuple(rest))
    name = row["op"].split(":", 1)[1]
    if name not in parts:
        raise Unpredictable(f"part {name} of a layer is unknown")
    return parts[name]


def batched(count: float, m: float, n: float, k: float) -> dict[str, float]:
    """Sizes of ``count`` equal GEMMs in one launch: their rows together, their second operands one after another."""
    return {"m": count * m, "n": n, "k": k, "weights": count}


def mlp_subblock(row: Row) -> Case:
    """The gated MLP block b = 32, d = 4096, f = 8192 in fp16, fused as engines run it: three matrices and an activation."""
    m, d, f = 32.0, 4096.0, 8192.0
    up, down = (replace(plain_gemm(*sizes), variant="") for sizes in ((m, 2 * f, d), (m, d, f)))
    return replace(up, also=(replace(moved(3 * m * f), variant=""), down))


READERS: dict[str, Callable[[Row], Case]] = {
    "gemm": gemm, "gemm_fp8_blockscale": gemm, "grouped_gemm_fp8_contiguous": gemm, "grouped_gemm_fp8_masked": gemm,
    "attention_decode": attention_decode, "attention_prefill_causal": attention_prefill, "attention_prefill_full": attention_prefill,
    "mla_decode_absorbed": mla_decode, "mla_prefill_causal": mla_prefill, "flash_attention2_fwd": flash_attention,
    "moe_ffn_fused": experts, "all_reduce": all_reduce, "all_gather": exchange, "reduce_scatter": exchange, "alltoall": exchange,
    "send_recv": send, "attn_pre_proj": gemm, "attn_post_proj": gemm, "mlp_up_proj": gemm, "mlp_down_proj": gemm,
    "mlp_subblock": mlp_subblock, "layer_total": layer_part,
    **dict.fromkeys(ELEMENTWISE_VALUES, elementwise),
    **dict.fromkeys(("stream_copy", "stream_mul", "stream_add", "stream_triad", "stream_dot"), stream),
}  # fmt: skip


def case(row: Row) -> Case:
    """The case that a row describes.

    Raises: Unpredictable: no equation describes the row, or a size is missing.

    >>> case({"op": "gemm", "m": "1", "n": "2", "k": "3", "precision_weights": "fp8", "unit": "us"}).constants
    'gemm.fp8'
    """
    op = row.get("op", "")
    if op in READERS:
        return READERS[op](row)
    if op.startswith("layer_part:"):
        return layer_part(row)
    if op.startswith("ep_"):
        return expert_exchange(row)
    raise Unpredictable(f"operator {op!r} has no equation")
