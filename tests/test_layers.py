"""Do the floors of the house hold, and do the contracts in pyproject.toml bite when somebody builds a stair upwards?

The negative cases run the real contracts on a skeleton of the package, one wrong import at a time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
DOWNWARDS = "Imports point downwards only"

# A house that keeps the rules: every room, and the imports that the rules must allow.
SKELETON = {
    "cli": "from dse import run, report, catalog",
    "run": "import dse.report.build, dse.search.explore, dse.results, dse.study",
    "report/__init__": "",
    "report/page": "import matplotlib, xarray; from dse import glossary, pareto, errors",
    "analysis/__init__": "import jax; from dse import study, evaluate",
    "study": "import tomllib; from dse import catalog, space",
    "calibrate": "import scipy; from dse import validate",
    "validate": "from dse import evaluate, catalog",
    "search/__init__": "",
    "search/explore": "import numpy; from dse.search import optuna_study",
    "search/optuna_study": "import optuna; from dse import evaluate",
    "results": "import xarray; from dse import evaluate, pareto",
    "evaluate": "import jax; from dse.equations import roofline; from dse import chips, serving",
    "serving": "import jax; from dse.equations import roofline; from dse import formats",
    "pareto": "import numpy",
    "space": "import numpy",
    "chips/__init__": "from dse.space import Variable; from dse.equations import roofline",
    "equations/__init__": "",
    "equations/roofline": "import jax.numpy; from dse.types import Chip; from dse.equations import smooth",
    "equations/smooth": "import jax",
    "catalog/__init__": "import pydantic; from dse import types, units, glossary, paths",
    "formats": "from dse import glossary, types",
    "types": "import jax; import dse._jax",
    "glossary": "from dse import units, errors",
    "units": "import pint; from dse import errors",
    "paths": "from dse import errors",
    "errors": "",
    "_jax": "import jax",
    "__init__": "",
    "__main__": "import dse.cli",
}

WRONG = [  # (room, import, the contract that must break)
    ("types", "import dse.equations.smooth", DOWNWARDS),
    ("equations/roofline", "import dse.catalog", DOWNWARDS),
    ("catalog/__init__", "import dse.equations", DOWNWARDS),
    ("evaluate", "import dse.search.explore", DOWNWARDS),
    ("serving", "import dse.evaluate", DOWNWARDS),
    ("search/explore", "import dse.results", DOWNWARDS),
    ("study", "def late():\n    import dse.run", DOWNWARDS),
    ("no_floor", "import dse.errors", DOWNWARDS),
    ("report/page", "import jax", "The report is a pure function of a Dataset"),
    ("report/page", "import dse.types", "The report is a pure function of a Dataset"),
    ("report/page", "import dse.search.explore", "The report is a pure function of a Dataset"),
    ("search/explore", "import optuna", "Optuna has one door"),
    ("study", "import matplotlib.pyplot", "Pictures are drawn in the report"),
    ("catalog/__init__", "import pint", "Units are read by pint in one place"),
    ("equations/smooth", "import numpy as np", "Equations know jax.numpy, the nouns and each other"),
    ("equations/smooth", "import dse.errors", "Equations know jax.numpy, the nouns and each other"),
    ("catalog/__init__", "import xarray", "The catalogue knows neither search nor results"),
    ("pareto", "import dse.errors", "Fronts are plain arrays"),
    ("chips/__init__", "import xarray", "Chips, the space and the model touch neither Optuna nor files of results"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUTF8": "1"}
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def broken(output: str) -> set[str]:
    return {line.partition(" BROKEN")[0] for line in output.splitlines() if " BROKEN" in line}


def contracts() -> set[str]:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return {contract["name"] for contract in tool["importlinter"]["contracts"]}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for room, text in SKELETON.items():
        file = tmp_path / "dse" / f"{room}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_its_floors() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_rules_must_allow_is_allowed(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("room", "wrong", "contract"), WRONG)
def test_a_wrong_import_breaks_its_contract(house: Path, room: str, wrong: str, contract: str) -> None:
    file = house / "dse" / f"{room}.py"
    file.write_text(f"{SKELETON.get(room, '')}\n{wrong}\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert contract in broken(done.stdout), done.stdout


def test_every_contract_has_a_wrong_import() -> None:
    assert {contract for _, _, contract in WRONG} == contracts()
