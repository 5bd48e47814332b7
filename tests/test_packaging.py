"""Does the package work where it is installed: cheap import, catalogue in the wheel, pins that fit, a cache that never stops a run?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dse
from dse import _jax

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("jax", "numpy", "scipy", "optuna", "xarray", "matplotlib", "pint", "pydantic", "typer", "rich")


def run_python(*args: str, cwd: Path, path: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python in ``cwd`` with ``path`` first on the module path."""
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHONUTF8": "1", **environ}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


# --- import ----------------------------------------------------------------------------------------------------------


def test_import_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, dse; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_types_switch_64_bit_on_whatever_comes_first(tmp_path: Path) -> None:
    code = "from dse.types import Workload; import jax.numpy as jnp; print(jnp.ones(1).dtype, jnp.ones(1, jnp.float32).dtype)"
    assert run_python("-c", code, cwd=tmp_path).stdout.split() == ["float64", "float32"]


def test_public_names_all_resolve() -> None:
    for name in dse.__all__:
        assert getattr(dse, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        _ = dse.evaluat


@pytest.mark.parametrize("first", ["import dse.evaluate", "from dse.evaluate import evaluate", "import dse"])
def test_evaluate_is_the_function_even_after_its_module_was_imported(tmp_path: Path, first: str) -> None:
    done = run_python("-c", f"{first}\nimport dse\nprint(callable(dse.evaluate))", cwd=tmp_path)
    assert done.stdout.strip() == "True", done.stderr


def test_version_is_that_of_the_project() -> None:
    assert dse.__version__ in (project()["version"], "0+unknown")


# --- pins ------------------------------------------------------------------------------------------------------------


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.M)}


def test_pins_satisfy_the_project() -> None:
    extras = project()["optional-dependencies"]["test"]  # others are for a few users, and no check needs them
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    wanted = [Requirement(line) for line in [*project()["dependencies"], *extras, *build]]
    assert len(wanted) > 15
    wrong = [str(r) for r in wanted if not r.specifier.contains(pins().get(canonicalize_name(r.name), "0"))]
    assert wrong == []


def test_every_requirement_is_pinned_with_a_hash() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) == len(pins()) > 15
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


def test_requirements_name_no_host_and_no_path() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert re.findall(r"(?i)\S*(?:://|index-url|find-links|trusted-host|file:)\S*", text) == []
    assert re.findall(r"(?m)(?:^|\s)(?:[/~]|\.\.?/|-[a-z]|@)\S*", text) == []


# --- the wheel, outside the checkout ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without network and return the folder where it is unpacked."""
    made = tmp_path_factory.mktemp("wheel")
    done = run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(made / "dist"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (file,) = (made / "dist").glob("dse-*-py3-none-any.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(made / "site")
    return made / "site"


def test_wheel_carries_catalogue_and_studies(wheel: Path, tmp_path: Path) -> None:
    code = "import dse.paths as p; print(p.data_dir('hw_catalog')); print(p.data_dir('studies'))"
    done = run_python("-c", code, cwd=tmp_path, path=wheel)
    assert done.stdout.split() == [str(wheel / "dse" / "_data" / name) for name in ("hw_catalog", "studies")], done.stderr
    for name in ("hw_catalog", "studies"):
        shipped = {f.relative_to(wheel / "dse" / "_data" / name) for f in (wheel / "dse" / "_data" / name).rglob("*.toml")}
        assert shipped == {f.relative_to(ROOT / name) for f in (ROOT / name).rglob("*.toml")} != set()
    assert (wheel / "dse" / "py.typed").is_file()
    assert (wheel / "dse" / "glossary.toml").is_file()
    assert not list(wheel.rglob("test_*.py"))


def test_wheel_prints_its_version(wheel: Path, tmp_path: Path) -> None:
    done = run_python("-m", "dse", "--version", cwd=tmp_path, path=wheel)
    assert done.returncode == 0, done.stderr
    assert project()["version"] in done.stdout


def test_wheel_evaluates_a_deployment(wheel: Path, tmp_path: Path) -> None:
    args = "--chip nvidia-h100-sxm --model llama-3-70b --isl 1024 --osl 1024 --tp 8 --batch 64 --json".split()
    done = run_python("-m", "dse", "eval", *args, cwd=tmp_path, path=wheel, XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["feasible"] is True
    assert (answer["chips"], answer["batch"]) == (8, 64)
    assert answer["interactivity_token_per_s"] * answer["tpot_s"] == pytest.approx(1.0)
    assert sum(answer["time_s"].values()) == pytest.approx(answer["tpot_s"], rel=1e-6)
    assert 0.003 < answer["tpot_s"] < 0.1  # weights alone: 70e9 x 2 byte over 8 x 3.35 TB/s are 5 ms
    assert 0.05 < answer["usd_per_million_output_token"] < 50
    assert list(tmp_path.iterdir()) == []  # nothing is left behind where it ran


# --- the compilation cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("linux", {"HOME": "/h"}, "/h/.cache/dse/jax"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/dse/jax"),
        ("darwin", {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/h/Library/Caches/dse/jax"),
        ("win32", {"USERPROFILE": "/u", "LOCALAPPDATA": "/l"}, "/l/dse/jax"),
        ("win32", {"USERPROFILE": "/u"}, "/u/AppData/Local/dse/jax"),
        ("linux", {"HOME": "/h", "DSE_CACHE_DIR": "/mine"}, "/mine"),
    ],
)
def test_cache_follows_the_platform(platform: str, environ: dict[str, str], folder: str) -> None:
    assert _jax.cache_dir(environ, platform) == Path(folder)


def test_cache_can_be_off() -> None:
    assert _jax.cache_dir({"HOME": "/h", "DSE_CACHE_DIR": ""}, "linux") is None
    assert _jax.cache_dir({}, "linux") is None  # nobody's home


COMPILE = "import dse._jax, jax; print(float(jax.jit(lambda x: x + 1.0)(1.0)), jax.config.jax_compilation_cache_dir)"


def test_cache_keeps_small_functions(tmp_path: Path) -> None:
    done = run_python("-W", "error", "-c", COMPILE, cwd=tmp_path, DSE_CACHE_DIR=str(tmp_path / "kept"))
    assert done.stdout.split() == ["2.0", str(tmp_path / "kept")], done.stderr
    assert list((tmp_path / "kept").glob("*-cache"))


def test_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_python("-W", "error", "-c", COMPILE, cwd=tmp_path, DSE_CACHE_DIR=str(tmp_path / "file" / "below"))
    assert done.stdout.split() == ["2.0", "None"], done.stderr


def test_cache_that_jax_was_given_stays(tmp_path: Path) -> None:
    theirs = str(tmp_path / "theirs")
    done = run_python("-c", COMPILE, cwd=tmp_path, DSE_CACHE_DIR=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=theirs)
    assert done.stdout.split() == ["2.0", theirs], done.stderr
    assert not (tmp_path / "ours").exists()
