"""How were server and client of a published run set? What the scripts that ran it say, from the table ``hw_catalog/settings.toml``.

A setting is a fact of the run, not of the engine: a client that draws lengths below the named ones, a server told to wait for more prompts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dse.paths import data_dir
from dse.validate.rows import Rule

TABLE = "settings.toml"
VALUES = ("length_share", "wait_steps", "poll_steps", "kv_fill", "chunk_token")


@dataclass(frozen=True)
class Settings:
    """What a script states; ``length_share`` is the mean length of prompts and answers, of the named one."""

    length_share: float = 1.0
    wait_steps: float = 0.0
    poll_steps: float = 0.0
    kv_fill: float | None = None  # that of the engine where none is stated, here and below
    chunk_token: float | None = None

    @property
    def leaves(self) -> dict[str, float]:
        """Those that are leaves of ``types.System``."""
        said = {name: getattr(self, name) for name in VALUES[1:]}
        return {name: value for name, value in said.items() if value is not None}


NONE = Settings()


@cache
def read_settings(path: Path | None = None) -> tuple[tuple[Rule, dict[str, float]], ...]:
    """Which rows a setting holds for, and its values; of two that hold for a row the later one counts."""
    with (path or data_dir("hw_catalog") / TABLE).open("rb") as file:
        raw = tomllib.load(file)
    return tuple((Rule(r["id"], r["note"], r["match"]), {k: float(r[k]) for k in VALUES if k in r}) for r in raw["setting"])


def settings_of(row: Mapping[str, str]) -> Settings:
    """The settings of a row; none are known where no script does.

    >>> settings_of({"src_key": "inferencemax", "mode": "aggregated"}).length_share, settings_of({}) == NONE
    (0.9, True)
    """
    found: dict[str, float] = {}
    for rule, values in read_settings():
        if rule.matches("", row):
            found |= values
    return Settings(**found)
