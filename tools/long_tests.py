"""What did the tests that take minutes show, when, with which versions?

    make long
    python tools/long_tests.py .pytest_cache/long.xml

Writes ``reports/long_tests.md`` from the XML that pytest leaves (``--junitxml``); several files make one page (a run in parts).
"""

from __future__ import annotations

import os
import platform
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import dse

PAGE = Path(__file__).resolve().parent.parent / "reports" / "long_tests.md"
PACKAGES = ("jax", "jaxlib", "optuna", "numpy", "scipy", "xarray")
MINUTE_S = 60
SHOWN = 6  # cases named; of more, only their number


@dataclass(frozen=True)
class Outcome:
    """One test: its file, its words, its case, what came of it, seconds."""

    file: str
    test: str
    case: str
    result: str
    seconds: float


def outcomes(path: Path) -> list[Outcome]:
    """Every test of one XML file of pytest."""
    found = []
    for node in ET.parse(path).getroot().iter("testcase"):
        name, _, case = node.attrib["name"].partition("[")
        kinds = [child.tag for child in node if child.tag in ("failure", "error", "skipped")]
        result = {"failure": "FAILED", "error": "FAILED", "skipped": "skipped"}.get(kinds[0], kinds[0]) if kinds else "passed"
        file = node.attrib["classname"].replace(".", "/") + ".py"
        found.append(Outcome(file, name.removeprefix("test_").replace("_", " "), case.rstrip("]"), result, float(node.attrib["time"])))
    return found


def table(found: list[Outcome]) -> list[str]:
    """One line a test function: its cases together."""
    lines = ["| file | what it shows | cases | passed | minutes |", "|---|---|---|---|---|"]
    for file, test in dict.fromkeys((o.file, o.test) for o in found):
        same = [o for o in found if (o.file, o.test) == (file, test)]
        cases = [o.case for o in same if o.case]
        good = sum(o.result == "passed" for o in same)
        bad = "".join(f"; {o.case or o.test}: {o.result}" for o in same if o.result != "passed")
        few = ", ".join(cases) if len(cases) <= SHOWN else f"{len(cases)} of them"
        minutes = sum(o.seconds for o in same) / MINUTE_S
        lines.append(f"| `{file}` | {test} | {few or 'one'} | {good} of {len(same)}{bad} | {minutes:.1f} |")
    return lines


def page(found: list[Outcome], when: str) -> str:
    """The page: command, date, versions, table."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = [
        "# Tests that take minutes",
        "",
        f"`make long` on {when}: {sum(o.result == 'passed' for o in found)} of {len(found)} passed, "
        f"{sum(o.seconds for o in found) / MINUTE_S:.0f} minutes, summed over tests.",
        "",
        f"dse {dse.__version__}, catalogue {dse.load_catalog().sha256[:8]}, Python {platform.python_version()}, {versions}; "
        f"{platform.machine()}, {os.cpu_count()} cores.",
        "",
    ]
    return "\n".join([*head, *table(found), ""])


def main(paths: list[str]) -> None:
    """Write the page, dated by the newest of the files."""
    if not paths:
        sys.exit("python tools/long_tests.py FILE.xml ...: the files that `pytest -m long --junitxml=FILE.xml` left")
    found = [o for path in paths for o in outcomes(Path(path))]
    when = max(ET.parse(path).getroot().iter("testsuite").__next__().attrib["timestamp"] for path in paths)[:10]
    PAGE.write_text(page(found, when), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
