"""A design-space explorer for LLM-inference hardware: what do speed, power and a token cost on chips that exist and chips that could?

``import dse`` is cheap. The names below load on first use; those that compute bring JAX with them, in 64-bit mode.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_HOME = {
    "Arrivals": "dse.types",
    "Chip": "dse.types",
    "Deployment": "dse.types",
    "LLM": "dse.types",
    "Layout": "dse.types",
    "Metrics": "dse.evaluate",
    "Prices": "dse.types",
    "Workload": "dse.types",
    "evaluate": "dse.evaluate",
    "ideal": "dse.evaluate",
    "load": "dse.results",
    "load_catalog": "dse.catalog",
    "run_study": "dse.run",
    "save": "dse.results",
    "stack": "dse.evaluate",
    "sweep": "dse.run",
}

__all__ = ["__version__", *_HOME]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dse")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'dse' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, in which ``dse.evaluate`` stays the function.

    Importing a submodule binds it as an attribute of its package; a module with the name of a public function would hide it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
