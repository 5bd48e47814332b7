"""What do README's computed lines say? Rewrites them from the committed result of the shipped study, or checks that they are in step.

``python tools/readme.py`` rewrites README.md; with ``--validate`` also the tables of errors, there and of the chips that no fit has seen
(a minute); with ``--check`` it only compares and exits 1 where they differ. The sentence on who wins comes from designs.csv, those on how
sure from the report and its answers.json.
"""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from dse import glossary
from dse.catalog import load_catalog
from dse.report.words import number, times
from dse.study import read_study

ROOT = Path(__file__).resolve().parent.parent
STUDY = "gpu_vs_sram_vs_asic"
COST = "usd_per_million_output_token"
ANSWER, ERRORS, END = "<!-- computed by `make readme` -->", "<!-- measured by `make readme` -->", "<!-- end -->"
SHOWN = {  # (level, metric) of `dse validate` -> words of the table
    ("op", "*"): "kernels and collectives, all",
    ("op", "gemm"): "matrix multiplications",
    ("op", "attention_decode"): "attention, decoding",
    ("op", "moe_ffn_fused"): "mixtures of experts",
    ("op", "all_reduce"): "all-reduce",
    ("system", "tpot"): "serving: time per output token",
    ("system", "output_throughput_per_chip"): "serving: throughput per chip",
    ("system", "ttft"): "serving: time to first token",
    ("system", "mlperf_tokens_per_s_per_chip"): "serving: MLPerf, best layout not stated",
}


SAMPLED = ("probability", "bands")  # figures whose sentences say how sure the headline is once its report was analysed


def cheapest(rows: list[dict[str, str]], limit_s: float) -> dict[str, tuple[float, str]]:
    """Cost [USD/Mtoken] and chip of the cheapest row of each family that meets a limit."""
    best: dict[str, tuple[float, str]] = {}
    for row in rows:
        cost = float(row[COST])
        if float(row["tpot_limit_s"]) <= limit_s * (1 + 1e-9) and cost < best.get(row["family"], (float("inf"), ""))[0]:
            best[row["family"]] = cost, row["chip"]
    return best


def headline(folder: Path) -> str:
    """Who wins the study's headline case, and by how much: from designs.csv."""
    study = read_study(STUDY)
    head = study.headline
    with (folder / "designs.csv").open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["model"], r["workload"], r["scenario"]) == (head.model, head.workload, head.scenario)]
    usable = [r for r in rows if r[COST] and r["on_front"] == "1" and not float(r.get("below_4_bit") or 0)]
    built = cheapest([r for r in usable if r["status"] == "hypothetical"], head.tpot)
    there = cheapest([r for r in usable if r["status"] == "existing"], head.tpot)
    (first, (cost, _)), *others = sorted(built.items(), key=lambda item: item[1][0])
    model = load_catalog().records["models"][head.model].name
    text = (
        f"Serving {model} ({head.workload}) at {number(1 / head.tpot)} token/s/user or faster, a {glossary.label(first)} chip "
        f"is cheapest: {number(cost)} USD per million output tokens, owner's view {head.scenario}"
    )
    if others:
        text += f"; the next family, {glossary.label(others[0][0])}, costs {times(others[0][1][0] / cost)}"
    if there:
        real_cost, chip = min(there.values())
        text += f"; the cheapest chip that exists, {chip}, {times(real_cost / cost)}"
    return text + "."


def sureness(folder: Path) -> str:
    """What the report says about how sure that is, without its details in brackets."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<div class="caveat" id="sure">(.*?)</div>', page, re.S)
    sentences = re.findall(r"<(?:p|li)>(.*?)</(?:p|li)>", found[1], re.S) if found else []
    plain = [html.unescape(re.sub(r"<[^>]+>", "", s)) for s in sentences[:3]]
    return " ".join(re.sub(r" \([^()]*(?:\[[^\]]*\][^()]*)+\)", "", s) for s in plain)


def sampled(folder: Path) -> str:
    """What samples of every uncertain input say of it: cost and probability of each family; empty where they were not drawn."""
    path = folder / "answers.json"
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    said = [figures[name].split(": ", 1)[-1] for name in SAMPLED if name in figures]
    return " ".join(f"{s[0].upper()}{s[1:]}" for s in said)


def block(folder: Path) -> str:
    """The computed lines of README."""
    said = f"**{headline(folder)}**\n\n{sureness(folder)}\n\n{sampled(folder)}".strip()
    return said.replace("\u202f", " ")


def error_table(groups: list[dict[str, Any]]) -> str:
    """The table of errors, from the groups of ``dse.validate``."""
    found = {(g["level"], g["op"]): g for g in groups if all(g[k] == "*" for k in ("chip", "model", "format"))}
    lines = ["| what | rows | median | 90 % below |", "|---|---:|---:|---:|"]
    for key, words in SHOWN.items():
        if (g := found.get(key)) is not None:
            lines.append(f"| {words} | {g['n']:,} | {g['median_abs_error'] * 100:.1f} % | {g['p90_abs_error'] * 100:.0f} % |")
    return "\n".join(lines)


def put(text: str, start: str, lines: str) -> str:
    """A text with the lines between a marker and its end replaced."""
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{lines}\n{END}{rest.partition(END)[2]}"


def rewritten(text: str, folder: Path) -> str:
    """README with its computed sentences made anew; as it is where there is no committed result."""
    return put(text, ANSWER, block(folder)) if (folder / "designs.csv").is_file() else text


def unseen_table(folder: Path) -> str:
    """Errors on the chips of a folder that no fit has seen, and below them those of the chip of its control."""
    from dse.validate import outcomes
    from dse.validate.unseen import CONTROL, by_chip, markdown

    catalog = load_catalog()
    rows = by_chip(outcomes(folder, catalog), folder, catalog)
    seen = by_chip(outcomes(folder / CONTROL, catalog), folder / CONTROL, catalog)
    return markdown(rows + [{**r, "chip": f"{r['chip']}: fits have seen it", "what": "all"} for r in seen if r["what"] == "all"])


def main() -> int:
    readme, folder = ROOT / "README.md", ROOT / "reports" / STUDY
    old = readme.read_text(encoding="utf-8")
    new = rewritten(old, folder)
    if "--check" in sys.argv:
        return int(old != new)
    if "--validate" in sys.argv:
        from dse.validate import validate

        new = put(new, ERRORS, error_table(validate()["groups"]))
        apart = ROOT / "reports" / "validation" / "unseen"
        page = apart / "README.md"
        page.write_text(put(page.read_text(encoding="utf-8"), ERRORS, unseen_table(apart)), encoding="utf-8")
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
