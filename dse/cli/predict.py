"""``dse eval``, ``dse best`` and ``dse sweep``: what does one chip achieve and cost, in one layout, the best one, or many?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.cli.common import INFEASIBLE, CatalogOption, JsonOption, open_catalog, print_json, say
from dse.cli.deployment import DEFAULT_PRICES, Asked, axes, deployment
from dse.cli.options import (
    BATCH,
    CHIP,
    MODEL,
    PRICES,
    Acceptance,
    Arrivals,
    ChipOption,
    Constants,
    Cp,
    Dp,
    Draft,
    DraftTokens,
    Ep,
    Format,
    InputCv,
    InputOption,
    KvFormat,
    KvOffload,
    Load,
    MaxChips,
    MaxTpot,
    MaxTtft,
    ModelOption,
    OutputCv,
    OutputOption,
    Over,
    Pp,
    PrefillChip,
    PrefillDp,
    PrefillEp,
    PrefillTp,
    Prefix,
    PricesOption,
    Quality,
    Redundant,
    Samples,
    Serving,
    Tp,
    Uneven,
    WorkloadOption,
)
from dse.errors import InputError

if TYPE_CHECKING:
    from dse.catalog import Catalog


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("eval")(eval_command)
    app.command("best")(best_command)
    app.command("sweep")(sweep_command)


def eval_command(
    chip: ChipOption,
    model: ModelOption,
    batch: Annotated[float, BATCH],
    workload: WorkloadOption = None,
    isl: InputOption = None,
    osl: OutputOption = None,
    tp: Tp = 1.0,
    pp: Pp = 1.0,
    cp: Cp = 1.0,
    dp: Dp = 1.0,
    ep: Ep = 1.0,
    serving: Serving = "aggregated",
    format: Format = None,
    kv_format: KvFormat = None,
    constants: Constants = "calibrated",
    prices: PricesOption = DEFAULT_PRICES,
    arrivals: Arrivals = None,
    load: Load = None,
    input_cv: InputCv = None,
    output_cv: OutputCv = None,
    prefill_chip: PrefillChip = None,
    prefill_tp: PrefillTp = None,
    prefill_dp: PrefillDp = None,
    prefill_ep: PrefillEp = None,
    prefix: Prefix = None,
    uneven_routing: Uneven = None,
    draft: Draft = None,
    draft_tokens: DraftTokens = None,
    acceptance: Acceptance = None,
    samples: Samples = None,
    kv_offload: KvOffload = None,
    redundant_experts: Redundant = None,
    quality: Quality = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Speed, power, memory and cost of one deployment."""
    options = dict(locals())
    asked = Asked(**{name: value for name, value in options.items() if name not in ("catalog", "as_json")})
    known = open_catalog(catalog)
    made, question = deployment(asked, known)
    from dse.evaluate import evaluate

    answer_with(evaluate(made).as_dict(), question, known, as_json, chip)


def best_command(
    chip: ChipOption,
    model: ModelOption,
    workload: WorkloadOption = None,
    isl: InputOption = None,
    osl: OutputOption = None,
    max_tpot: MaxTpot = None,
    max_ttft: MaxTtft = None,
    max_chips: MaxChips = None,
    constants: Constants = "calibrated",
    prices: PricesOption = DEFAULT_PRICES,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """The cheapest feasible layout, batch and format of one chip."""
    from dse.study import seconds

    known = open_catalog(catalog)
    tpot = None if max_tpot is None else seconds(max_tpot, "--max-tpot")
    ttft = None if max_ttft is None else seconds(max_ttft, "--max-ttft")
    asked = Asked(chip=chip, model=model, workload=workload, isl=isl, osl=osl, constants=constants, prices=prices)
    made, question = deployment(asked, known)
    from dse.search.layouts import best_layouts

    if ttft is None and question["workload"]:
        limit = known.records["workloads"][question["workload"]].values.get("ttft_limit")
        ttft = limit.value if limit else None
    _, metrics = best_layouts(made.chip, made.model, made.workload, made.prices, tpot, ttft, max_chips)
    limits = {"max_tpot_s": tpot, "max_ttft_s": ttft, "max_chips": max_chips}
    answer_with(metrics.as_dict(), {**question, **limits}, known, as_json, chip)


def answer_with(metrics: Mapping[str, Any], question: Mapping[str, Any], catalog: Catalog, as_json: bool, given: str) -> None:
    """Print an evaluated deployment of the chip ``given`` (an id or a file); exit code 3 where it is not feasible."""
    from dse.cli.table import metrics_text

    calibrated = question["constants"] == "calibrated"
    found = catalog.constants_of(question["chip"]) if calibrated else ("ideal", "option")
    filled = list(dict.fromkeys(leaf for leaf, _ in catalog.filled(question["chip"])))
    answer = {
        "question": dict(question),
        **metrics,
        "constants": question["constants"],
        "constants_id": found[0],
        "constants_found_by": found[1],
        "chip_values_from_family": filled,
    }
    if as_json:
        print_json(answer)
    else:
        print(metrics_text(answer))
        if filled:
            say(f"{len(filled)} values of {question['chip']} come from its family's defaults: dse catalog show {given}")
    if not metrics["feasible"]:
        raise typer.Exit(INFEASIBLE)


def sweep_command(
    over: Over,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.nc", help="Where to write the Dataset.")],
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Its headline and first chip are the base.")] = None,
    chip: Annotated[str | None, CHIP] = None,
    model: Annotated[str | None, MODEL] = None,
    batch: Annotated[float, BATCH] = 1.0,
    workload: WorkloadOption = None,
    isl: InputOption = None,
    osl: OutputOption = None,
    tp: Tp = 1.0,
    pp: Pp = 1.0,
    cp: Cp = 1.0,
    dp: Dp = 1.0,
    ep: Ep = 1.0,
    serving: Serving = "aggregated",
    format: Format = None,
    kv_format: KvFormat = None,
    constants: Constants = "calibrated",
    prices: Annotated[str | None, PRICES] = None,
    arrivals: Arrivals = None,
    load: Load = None,
    input_cv: InputCv = None,
    output_cv: OutputCv = None,
    prefill_chip: PrefillChip = None,
    prefill_tp: PrefillTp = None,
    prefill_dp: PrefillDp = None,
    prefill_ep: PrefillEp = None,
    prefix: Prefix = None,
    uneven_routing: Uneven = None,
    draft: Draft = None,
    draft_tokens: DraftTokens = None,
    acceptance: Acceptance = None,
    samples: Samples = None,
    kv_offload: KvOffload = None,
    redundant_experts: Redundant = None,
    quality: Quality = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """One deployment over a grid of its numbers, as a Dataset."""
    options = dict(locals())
    rest = ("over", "out", "study", "catalog", "as_json")
    asked = Asked(**{name: value for name, value in options.items() if name not in rest and value is not None})
    made, question = deployment(_of_study(study, asked, prices) if study else _with_lengths(asked, over), open_catalog(catalog))
    grid = axes(over, made)
    from dse.results import save
    from dse.run import sweep

    ds = sweep(made, grid)
    out.parent.mkdir(parents=True, exist_ok=True)
    save(ds, out)
    feasible = int(ds["feasible"].sum())
    if as_json:
        print_json({"question": question, "over": grid, "out": out, "evaluated": int(ds["feasible"].size), "feasible": feasible})
    else:
        print(f"{out}: {' x '.join(f'{path} ({len(v)})' for path, v in grid.items())}; {feasible} of {ds['feasible'].size} feasible")
    if not feasible:
        raise typer.Exit(INFEASIBLE)


def _with_lengths(asked: Asked, over: list[str]) -> Asked:
    """A length that is swept need not be given: the base takes its place."""
    swept = {text.partition("=")[0].strip() for text in over}
    missing = {name: 1.0 for name in ("isl", "osl") if name in swept and getattr(asked, name) is None and asked.workload is None}
    return replace(asked, **missing)  # type: ignore[arg-type]


def _of_study(name: str, asked: Asked, prices: str | None) -> Asked:
    """What the options leave open, from the headline case of a study."""
    from dse.study import read_study

    study = read_study(name)
    if asked.chip is None and not study.real_chips:
        raise InputError(f"{study.label}: real_chips — found none to sweep, allowed --chip ID")
    lengths = asked.isl is not None or asked.osl is not None
    return replace(
        asked,
        chip=asked.chip or study.real_chips[0],
        model=asked.model or study.headline.model,
        workload=asked.workload or (None if lengths else study.headline.workload),
        prices=prices or study.headline.scenario,
    )
