"""What do README's computed lines say? Rewrites them from the committed result of the shipped study, or checks that they are in step.

``python tools/readme.py`` rewrites README.md; with ``--check`` it only compares and exits 1 where they differ. The sentence on who
wins comes from designs.csv, the one on how sure from the report beside it.
"""

from __future__ import annotations

import csv
import html
import re
import sys
from pathlib import Path

from dse import glossary
from dse.report.words import number, times
from dse.study import read_study

ROOT = Path(__file__).resolve().parent.parent
STUDY = "gpu_vs_sram_vs_asic"
COST = "usd_per_million_output_token"
START, END = "<!-- computed by `make readme` -->", "<!-- end -->"


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
    text = (
        f"Serving {head.model} ({head.workload}) at {number(1 / head.tpot)} token/s/user or faster, a {glossary.label(first)} chip "
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


def block(folder: Path) -> str:
    """The computed lines of README."""
    said = f"**{headline(folder)}**\n\n{sureness(folder)}".strip()
    return said.replace("\u202f", " ")


def rewritten(text: str, folder: Path) -> str:
    """README with its computed lines made anew; as it is where there is no committed result."""
    if not (folder / "designs.csv").is_file():
        return text
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{block(folder)}\n{END}{after}"


def main() -> int:
    readme, folder = ROOT / "README.md", ROOT / "reports" / STUDY
    old = readme.read_text(encoding="utf-8")
    new = rewritten(old, folder)
    if "--check" in sys.argv:
        return int(old != new)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
