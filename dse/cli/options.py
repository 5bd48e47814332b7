"""Which options describe a deployment on the command line? Their names are those of ``Layout``, ``Workload`` and ``Deployment``."""

from __future__ import annotations

from typing import Annotated

import typer

CHIP = typer.Option("--chip", metavar="ID", help="Chip: id, alias, or path of a TOML file.")
MODEL = typer.Option("--model", metavar="ID", help="Language model: id, alias, or path of a TOML file.")
ChipOption = Annotated[str, CHIP]
ModelOption = Annotated[str, MODEL]
WorkloadOption = Annotated[str | None, typer.Option("--workload", metavar="ID", help="Kind of request (instead of --isl and --osl).")]
InputOption = Annotated[float | None, typer.Option("--isl", metavar="N", help="Input tokens of a request.")]
OutputOption = Annotated[float | None, typer.Option("--osl", metavar="N", help="Output tokens of a request.")]
Tp = Annotated[float, typer.Option("--tp", metavar="N", help="Tensor parallel degree.")]
Pp = Annotated[float, typer.Option("--pp", metavar="N", help="Pipeline stages.")]
Cp = Annotated[float, typer.Option("--cp", metavar="N", help="Context parallel degree.")]
Dp = Annotated[float, typer.Option("--dp", metavar="N", help="Attention data parallel degree inside the instance.")]
Ep = Annotated[float, typer.Option("--ep", metavar="N", help="Expert parallel degree; re-uses the chips of a stage.")]
BATCH = typer.Option("--batch", metavar="N", help="Requests in the instance at the same time, all chips together.")
Serving = Annotated[str, typer.Option("--serving", metavar="S", help="aggregated, disaggregated, decode, prefill or static.")]
Format = Annotated[str | None, typer.Option("--format", metavar="F", help="Weights: fp32 bf16 fp8 fp8_block int8 nvfp4 mxfp4 int3..int6.")]
KvFormat = Annotated[str | None, typer.Option("--kv-format", metavar="F", help="KV cache; else what the weight format implies.")]
Constants = Annotated[str, typer.Option("--constants", metavar="C", help="calibrated, or ideal (datasheet peaks, nothing fixed).")]
PRICES = typer.Option("--prices", metavar="ID", help="Owner's view: at-cost-2026, owner-2026 (default), street-2026, rent-2026.")
PricesOption = Annotated[str, PRICES]

Arrivals = Annotated[float | None, typer.Option("--arrivals", metavar="RATE", help="Random requests a second; batch is the most at once.")]
Load = Annotated[float | None, typer.Option("--load", metavar="X", help="Instead: share of the rate that keeps the batch full.")]
InputCv = Annotated[float | None, typer.Option("--input-cv", metavar="X", help="Spread of input lengths: standard deviation over mean.")]
OutputCv = Annotated[float | None, typer.Option("--output-cv", metavar="X", help="Spread of output lengths: standard deviation over mean.")]

PrefillChip = Annotated[str | None, typer.Option("--prefill-chip", metavar="ID", help="Disaggregated: chip of the prefill instances.")]
PrefillTp = Annotated[
    float | None, typer.Option("--prefill-tp", metavar="N", help="Disaggregated: tensor parallel degree of a prefill instance.")
]
PrefillDp = Annotated[
    float | None, typer.Option("--prefill-dp", metavar="N", help="Disaggregated: attention data parallel degree of a prefill instance.")
]
PrefillEp = Annotated[
    float | None, typer.Option("--prefill-ep", metavar="N", help="Disaggregated: expert parallel degree of a prefill instance.")
]
Prefix = Annotated[
    float | None, typer.Option("--prefix", metavar="N", help="Tokens of the input that all requests share and that are cached already.")
]
Uneven = Annotated[
    float | None, typer.Option("--uneven-routing", metavar="X", help="Load of experts: 1 a power law, as measured (default); 0 balanced.")
]
Draft = Annotated[str | None, typer.Option("--draft", metavar="ID", help="Speculative decoding: draft model, or self (an extra layer).")]
DraftTokens = Annotated[float | None, typer.Option("--draft-tokens", metavar="N", help="Tokens drafted in a step.")]
Acceptance = Annotated[float | None, typer.Option("--acceptance", metavar="X", help="Probability that a drafted token is accepted.")]
Samples = Annotated[float | None, typer.Option("--samples", metavar="N", help="Answers drawn for one input; each counts in the batch.")]

KvOffload = Annotated[float | None, typer.Option("--kv-offload", metavar="X", help="Share of the KV cache in the memory of the host.")]
Redundant = Annotated[float | None, typer.Option("--redundant-experts", metavar="N", help="Further copies of busy experts in each layer.")]
Quality = Annotated[float | None, typer.Option("--quality", metavar="X", help="Worth of a token, as you state it; shown apart.")]

MaxTpot = Annotated[str | None, typer.Option("--max-tpot", metavar="TIME", help='Limit on time per output token, such as "30ms".')]
MaxTtft = Annotated[str | None, typer.Option("--max-ttft", metavar="TIME", help='Limit on time to first token, such as "2s".')]
MaxChips = Annotated[int | None, typer.Option("--max-chips", metavar="N", min=1, help="Chips of an instance at most.")]
Over = Annotated[list[str], typer.Option("--over", metavar="NAME=V,V,...", help="Axis: batch, tp, pp, cp, dp, ep, isl, osl or a path.")]
