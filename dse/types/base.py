"""What a noun of the model is: a frozen pytree of numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import jax

import dse._jax  # noqa: F401  sets 64-bit mode and the compilation cache

T = TypeVar("T")
Number = Any  # float, numpy scalar or JAX array, of any shape that broadcasts


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(*static: str):
    """Class decorator: a frozen, keyword-only dataclass registered with JAX; the fields named in ``static`` are not leaves."""

    def register(cls: type[T]) -> type[T]:
        cls = dataclass(frozen=True, kw_only=True)(cls)
        data = [f.name for f in dataclasses.fields(cls) if f.name not in static]  # type: ignore[arg-type]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register
