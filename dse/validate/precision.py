"""Which format does a spelling of a measured row mean? The table ``hw_catalog/precisions.toml``, with a reason for each line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache

from dse.paths import data_dir

TABLE = "precisions.toml"


@dataclass(frozen=True)
class Spelling:
    """What a spelling means: the model's format, the class of kernel constants, another format for some models, and why."""

    reason: str
    format: str = ""
    kernel: str = ""
    byte: float = 1.0
    models: dict[str, str] = field(default_factory=dict)

    def format_for(self, model: str) -> str:
        """The format for a model's id; empty: the one it is released in."""
        return next((name for begin, name in self.models.items() if model.startswith(begin)), self.format)


@cache
def spellings(column: str) -> dict[str, Spelling]:
    """Spellings of a kind of column: ``weights``, ``cache`` or ``values``.

    >>> spellings("weights")["fp4"].format_for("gpt-oss-120b"), spellings("weights")["fp4"].format_for("llama-3.3-70b")
    ('mxfp4', 'nvfp4')
    """
    with (data_dir("hw_catalog") / TABLE).open("rb") as file:
        raw = tomllib.load(file)
    return {text.lower(): Spelling(**entry) for text, entry in raw[column].items()}


def spelled(column: str, text: str | None) -> Spelling | None:
    """What a text of a column means, or None where the table does not know it."""
    return spellings(column).get((text or "").strip().lower())
