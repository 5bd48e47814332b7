"""Which of the readers' questions does this project answer, where, and in which sentence? Three readers, ten questions each.

A question is answered by a figure of a report with a sentence computed from its data; else by a command, or not yet, with the reason.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import breakeven, info, limits, regret, uncertainty
from dse.report import page as P
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W

Sayer = Callable[[xr.Dataset], str]
ARCHITECT, STRATEGIST, ECONOMIST = "Hardware architect", "Infrastructure strategist", "Research economist"
MAIN = "gpu_vs_sram_vs_asic"


@dataclass(frozen=True)
class Question:
    """One question of one reader: where it is answered (report and place), or what to do instead."""

    reader: str
    text: str
    report: str = ""  # study whose report answers it
    place: str = ""  # anchor of the main report
    say: Sayer | None = None  # its sentence, from the main result
    otherwise: str = ""  # command, or reason


def _case(ds: xr.Dataset) -> tuple[V.Case, float, V.CaseView, int]:
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    return case, limit_s, v, V.limit_index(v, limit_s)


def _band(ds: xr.Dataset, name: str, limit_s: float) -> str:
    """The 90 % band of a competitor's cost at the headline, in brackets; empty without samples."""
    if not uncertainty.known(ds):
        return ""
    case, _ = V.headline(ds)
    table = (
        ds["cost_quantile"].sel(model=case.model, workload=case.workload, scenario=case.scenario).sel(tpot_limit=limit_s, method="nearest")
    )
    if name not in table["competitor"].values:
        return ""
    low, high = (float(table.sel(competitor=name, quantile=q)) for q in (0.05, 0.95))
    end = W.number(high) if np.isfinite(high) else "not feasible"
    return f" (90{W.NARROW}% of the samples: {W.number(low)} to {end})"


def _whole(ds: xr.Dataset, caption: str, what: str, ranking: list[tuple[str, int, float]], limit_s: float) -> str:
    """A caption with the winner's cost and its band behind it."""
    if not ranking:
        return caption
    return f"{caption} {what}: {W.number(ranking[0][2])} USD/Mtoken{_band(ds, ranking[0][0], limit_s)}."


def _binding(ds: xr.Dataset) -> str:
    record = limits.limit_map(ds)
    return record.caption if record else ""


def _worth(ds: xr.Dataset) -> str:
    case, _limit_s, v, limit = _case(ds)
    ranking = V.winners(v, limit)
    if not ranking:
        return ""
    family = ranking[0][0]
    slopes = V.elasticities(ds, case, family)
    names = ("memory_bandwidth_byte_per_s", "peak_flop_per_s", "scale_up_bandwidth_byte_per_s", "unit_cost_usd")
    said = [f"{glossary.label(n)} {W.number(slopes[n], 2).replace('-', '−')}" for n in names if n in slopes]
    effect = V.effects(ds, case, family)
    widest = max(effect.items(), key=lambda e: max(map(abs, e[1])), default=None)
    text = f"{glossary.label(family)}: one per cent more changes the cost by, in per cent: {', '.join(said)}."
    if widest:
        low, high = sorted(widest[1])
        text += f" Over its 90{W.NARROW}% range {widest[0]} alone moves the cost by {W.percent(low, True)} to {W.percent(high, True)}."
    return text


def _time(ds: xr.Dataset) -> str:
    record = next((r for r in info.breakdowns(ds) if r.name == "time"), None)
    _, _limit_s, v, limit = _case(ds)
    ranking = V.winners(v, limit)
    if record is None or not ranking:
        return ""
    d = ranking[0][1]
    low, high = (V.cell(v, f"{end}.tpot_s", d, limit) for end in ("low", "high"))
    sure = f" The time itself is known to {W.shown('tpot_s', low)} to {W.quantity('tpot_s', high)} (90{W.NARROW}%)." if low and high else ""
    return record.caption + sure


def _survives(ds: xr.Dataset) -> str:
    record = regret.regret(ds)
    _, limit_s, v, limit = _case(ds)
    ranking = V.winners(v, limit)
    return _whole(ds, record.caption, "Cost of the headline's best", ranking, limit_s) if record else ""


def _price(ds: xr.Dataset) -> str:
    case, _limit_s, v, limit = _case(ds)
    if not uncertainty.known(ds, case):
        return W.winner_sentence(ds, v, limit)
    return uncertainty.bands(ds, case, "bands").caption


def _dollar(ds: xr.Dataset) -> str:
    record = next((r for r in info.breakdowns(ds) if r.name == "dollar"), None)
    _, limit_s, v, limit = _case(ds)
    ranking = V.winners(v, limit)
    return _whole(ds, record.caption, "The whole", ranking, limit_s) if record else ""


def _doubled(ds: xr.Dataset) -> str:
    """Effect of doubled energy and HBM prices on the winner and on the lead."""
    case, _limit_s, v, limit = _case(ds)
    ranking = V.winners(v, limit)
    if not ranking or "flip_multiple" not in ds:
        return ""
    family = ranking[0][0]
    slopes = V.elasticities(ds, case, family)
    said = [f"energy at twice its price raises the cost of {glossary.label(family)} by {W.percent(slopes.get('energy_usd_per_j', 0.0))}"]
    for lever in ("energy price", "HBM price"):
        if lever not in ds["lever"].values:
            continue
        row = ds.sel(lever=lever)
        flips = [str(a) for a in ds["against"].values if np.isfinite(row["flip_multiple"].sel(against=a).values).any()]
        low, high = (float(x) for x in row["lever_interval"].transpose("way").values)
        span = f" (stated interval {W.number(low)} to {W.number(high)} times)" if np.isfinite(low) else ""
        kept = f"no {lever} within a factor of 100 changes who is cheapest"
        said.append((f"{lever} can change the ranking against {' and '.join(flips)}" if flips else kept) + span)
    return (said[0] + "; " + "; ".join(said[1:]) + ".").replace("energy at", "Energy at", 1)


def _mind(ds: xr.Dataset) -> str:
    return " ".join(breakeven.flips(ds, a).caption for a in breakeven.comparisons(ds))


def _uncertain(ds: xr.Dataset) -> str:
    case, limit_s = V.headline(ds)
    return uncertainty.chance_sentence(ds, case, limit_s) if uncertainty.known(ds, case) else ""


def _assumption(ds: xr.Dataset) -> str:
    record = uncertainty.shares(ds)
    return record.caption if record else ""


def _premium(ds: xr.Dataset) -> str:
    """What twice the speed costs, with the quantiles over samples."""
    if "speed_premium" not in ds:
        return ""
    case, limit_s = V.headline(ds)
    low, middle, high = (
        float(ds["speed_premium"].sel(model=case.model, workload=case.workload, scenario=case.scenario, quantile=q))
        for q in (0.05, 0.5, 0.95)
    )
    speed = 1 / limit_s
    return (
        f"{V.case_name(ds, case)}: twice the speed ({W.number(2 * speed)} instead of {W.number(speed)} token/s/user), each with its "
        f"cheapest family, costs {W.number(middle)} times as much (90{W.NARROW}% of the samples: {W.number(low)} to {W.number(high)})."
    )


def _cite(ds: xr.Dataset) -> str:
    sources = len(V.attr(ds, "bibliography", {}))
    run = f"dse run {ds.attrs.get('study', MAIN)} --seed {ds.attrs.get('seed', 0)}"
    return f"Rerun: {run}; dse cite prints its {sources} sources; hashes of study and catalogue stand in the report."


QUESTIONS: tuple[Question, ...] = (
    Question(
        ARCHITECT,
        "What mix of compute, SRAM and HBM is best within reticle, power and cost?",
        MAIN,
        "designs",
        otherwise="the winners' variables at every promise; a ternary picture is not drawn",
    ),
    Question(ARCHITECT, "Which limit binds where?", MAIN, "limit-map", _binding),
    Question(ARCHITECT, "What is one more TB/s, GB or FLOP/s worth?", MAIN, "matters", _worth),
    Question(ARCHITECT, "Where does the time of one decode step go?", MAIN, "breakdown", _time),
    Question(ARCHITECT, "Where does the die and package area and cost go?", MAIN, "breakdown", otherwise="bars of die area and chip cost"),
    Question(
        ARCHITECT,
        "How large should the die be, one or chiplets?",
        otherwise="dse run a study that fixes die_area_mm2 and dies in [families.X]; dse diff the results",
    ),
    Question(
        ARCHITECT,
        "How large must the scale-up domain be for mixtures of experts?",
        otherwise="dse sweep --model deepseek-r1 --over chip.scale_up.chips=8,16,32,64,72",
    ),
    Question(ARCHITECT, "What number format pays?", MAIN, "answers", otherwise="analysis 'formats' of the main report"),
    Question(ARCHITECT, "How wrong can the model be?", otherwise="dse validate: reports/validation/report.html"),
    Question(ARCHITECT, "Does the answer survive other workloads?", MAIN, "regret", _survives),
    Question(STRATEGIST, "What does a million tokens cost on each option at the speed we promise?", MAIN, "cost", _price),
    Question(
        STRATEGIST,
        "Per megawatt, which option gives most?",
        otherwise="designs.csv: output tokens a second over facility_power_w; no figure of its own",
    ),
    Question(STRATEGIST, "Buy, rent or build our own chip, at what volume?", "buy_rent_build", otherwise="dse run buy_rent_build"),
    Question(STRATEGIST, "What is in the dollar?", MAIN, "breakdown", _dollar),
    Question(
        STRATEGIST,
        "How much does utilisation matter?",
        MAIN,
        "matters",
        otherwise="elasticity to utilisation, and its row of the flip table",
    ),
    Question(STRATEGIST, "What if power or HBM price doubles?", MAIN, "flips", _doubled),
    Question(
        STRATEGIST,
        "Split prefill and decode? In which ratio?",
        otherwise="dse eval --serving disaggregated against aggregated; not searched in a study yet",
    ),
    Question(STRATEGIST, "How long until this fleet is uncompetitive?", otherwise="not answered: the catalogue has no price forecasts"),
    Question(
        STRATEGIST, "How many racks for our demand?", "economies_of_scale", otherwise="dse run economies_of_scale: chips and cost by users"
    ),
    Question(STRATEGIST, "What would change our mind?", MAIN, "flips", _mind),
    Question(
        ECONOMIST,
        "What is the marginal cost of a token, and what the average?",
        "economies_of_scale",
        otherwise="dse run economies_of_scale",
    ),
    Question(
        ECONOMIST,
        "How fast has cost fallen, and by what cause?",
        otherwise="not answered: needs dated prices of past chips; dse diff shows two catalogues",
    ),
    Question(ECONOMIST, "How uncertain is it?", MAIN, "sure-of-ranking", _uncertain),
    Question(ECONOMIST, "Which assumption matters most?", MAIN, "sure-of-ranking", _assumption),
    Question(ECONOMIST, "What margin do list prices imply?", otherwise="not answered: no list of API prices is in the catalogue"),
    Question(ECONOMIST, "Speed premium: what does twice the speed cost?", MAIN, "cost", _premium),
    Question(ECONOMIST, "How do costs scale with parameters, context, sparsity?", "long_context", otherwise="dse run long_context"),
    Question(
        ECONOMIST,
        "Which inputs are scarce (HBM, packaging, power)?",
        otherwise="dse analyse --what elasticity: what each limit is worth; tokens per stack are not drawn",
    ),
    Question(ECONOMIST, "Do results agree with published measurements and other models?", otherwise="dse validate; dse run seed_claims"),
    Question(ECONOMIST, "Can I cite and rerun it?", MAIN, "rerun", _cite),
)


def answer(ds: xr.Dataset, question: Question) -> str:
    """The sentence that answers a question from a result; empty where this result does not."""
    if question.say is None or question.report not in ("", str(ds.attrs.get("study", ""))):
        return ""
    return question.say(ds)


def rows(ds: xr.Dataset) -> list[dict[str, str]]:
    """All questions with their answers, or where to look."""
    found = []
    for q in QUESTIONS:
        said = answer(ds, q)
        found.append(
            {
                "reader": q.reader,
                "question": q.text,
                "report": q.report,
                "place": q.place if said else "",
                "answer": said,
                "otherwise": "" if said else q.otherwise or "dse analyse",
            }
        )
    return found


def markdown(ds: xr.Dataset) -> str:
    """The questions as a text to read beside the report."""
    lines = [f"# Thirty questions of three readers, answered from `{ds.attrs.get('study', '')}`", ""]
    for reader in (ARCHITECT, STRATEGIST, ECONOMIST):
        lines += [f"## {reader}", ""]
        for r in (x for x in rows(ds) if x["reader"] == reader):
            where = f" (report.html#{r['place']})" if r["answer"] else ""
            lines.append(f"- **{r['question']}** {r['answer'] or 'See: ' + r['otherwise']}{where}")
        lines.append("")
    return "\n".join(lines).replace(W.NARROW, " ")


def section(page: P.Page) -> None:
    """The table of questions, for the study that answers most of them."""
    ds = page.ds
    if str(ds.attrs.get("study", "")) != MAIN or not uncertainty.known(ds):
        return
    body = []
    for r in rows(ds):
        said = html.escape(r["answer"] or r["otherwise"])
        link = f' <a href="#{r["place"]}">figure</a>' if r["place"] else ""
        body.append([html.escape(r["question"]), html.escape(r["reader"]), said + link])
    page.files["questions.md"] = markdown(ds)
    page.add(
        '<h2 id="questions">Which questions are answered?</h2>', T.table(["Question", "Reader", "Answer, or where it is"], body, "cases")
    )
