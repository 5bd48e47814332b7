"""How do all tests run? Strict JAX, no display, repeatable random inputs, compiled functions shared by all processes and kept between runs.

Compiling takes most of the time of a first run, and tests call a function a few times only. So XLA compiles quickly here: its older
emitters of loops, without optimisation, the same operations in the same precision, a fourth of the time. ``XLA_FLAGS=`` (set to nothing,
as in ``make long`` and in the test of the installed wheel) compiles as users get it.
"""

from __future__ import annotations

import functools
import os
import pickle
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("DSE_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("MPLBACKEND", "Agg")
if version("jaxlib").startswith("0.10."):  # XLA ends a process that names a flag which it does not have
    os.environ.setdefault("XLA_FLAGS", QUICK)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

import dse._jax  # noqa: E402, F401  before any array is made

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("wide", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

parse = tomllib.loads


@functools.cache
def parsed(text: str) -> bytes:
    """A TOML text as a pickle of what it holds."""
    return pickle.dumps(parse(text))


def loads(text: str, **options: Any) -> dict[str, Any]:
    """``tomllib.loads``; a text that was seen before is not parsed again (half of what loading the catalogue takes, hundreds of times)."""
    return parse(text, **options) if options else pickle.loads(parsed(text))


tomllib.loads = loads

LONGEST = """
run claims serving report finish cli flips evaluate validate calibrate uncertainty properties certify serving_features operator_shapes
optimum elasticity layouts chips queueing answers tradeoff refine silicon unseen regret breakeven search intervals
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that two processes end together (``--no-loadscope-reorder`` keeps this order)."""
    place = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
