"""Is this one value of a study allowed, and what does it mean? Each check returns the parsed value or says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dse import glossary
from dse.errors import InputError, closest
from dse.units import dimension, to_si

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([^\s\d].*?)\s*\Z")
Check = Callable[[Any], Any]


class WrongError(Exception):
    """A value is not allowed; the message says what is, and names the nearest."""


def _among(value: str, names: tuple[str, ...]) -> str:
    if value not in names:
        raise WrongError(f"{', '.join(names)}{closest(value, names)}")
    return value


def text(value: Any) -> str:
    """Words."""
    if not isinstance(value, str) or not value.strip():
        raise WrongError("text in quotes")
    return value


def is_name(value: Any) -> bool:
    """Whether a study (and the folder of its results) may have this name."""
    return isinstance(value, str) and bool(_NAME.match(value))


def name(value: Any) -> str:
    """The name of a study."""
    if not is_name(value):
        raise WrongError("letters, digits, '-', '_' and '.', such as 'my_study'")
    return value


def flag(value: Any) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise WrongError("true or false")
    return value


def share(value: Any) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise WrongError("a number from 0 to 1")
    return float(value)


def worth(value: Any) -> float:
    """What a token is worth to its reader, beside one of the best format."""
    if share(value) == 0.0:
        raise WrongError("a number above 0, at most 1")
    return float(value)


def whole(least: int) -> Check:
    """A check for whole numbers from ``least``."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise WrongError(f"a whole number from {least}")
        return value

    return check


def positive(value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise WrongError("a number above 0")
    return float(value)


def one_of(*names: str) -> Check:
    """A check for one of the names."""

    def check(value: Any) -> str:
        return _among(text(value), names)

    return check


def time(value: Any) -> float:
    """A time with its unit, in seconds."""
    match = _TIME.match(value) if isinstance(value, str) else None
    try:
        parsed = to_si(float(match.group(1)), match.group(2)) if match and dimension(match.group(2)) == "s" else 0.0
    except InputError:
        parsed = 0.0
    if not 0 < parsed < float("inf"):
        raise WrongError('a time with its unit, such as "20 ms" or "2 s"')
    return parsed


def list_of(check: Check, empty: bool = False) -> Check:
    """A check for a list of distinct values; an empty one only where ``empty``."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not (value or empty):
            raise WrongError("a list" if empty else "a list with at least one value")
        found: list[Any] = []
        for entry in value:
            try:
                parsed = check(entry)
            except WrongError as wrong:
                raise WrongError(f"in place of {entry!r} {wrong}") from None
            if parsed in found:
                raise WrongError(f"each value once ({entry!r} stands there twice)")
            found.append(parsed)
        return tuple(found)

    return read


SAMPLERS = ("nsga2", "nsga3", "tpe", "cmaes", "gp", "qmc", "random")


def sampler(value: Any) -> str:
    """A sampler: one of the short names, or the name of a class of Optuna's, which is looked up before the search."""
    named = text(value)
    if not (named.endswith("Sampler") and named.isidentifier()):
        _among(named, (*SAMPLERS, "a class of optuna.samplers such as NSGAIIISampler"))
    return named


def objective(value: Any) -> str:
    """A metric that can be improved."""
    known = tuple(entry.name for entry in glossary.load().entries.values() if entry.better != "none")
    if value not in known:
        raise WrongError(f"a metric with a better direction, such as usd_per_million_output_token or tpot_s{closest(str(value), known)}")
    return value


def seconds(text: str, name: str = "time") -> float:
    """A time with its unit as seconds. Raises InputError.

    >>> seconds("30ms"), seconds("1.5 s")
    (0.03, 1.5)
    """
    try:
        return time(text)
    except WrongError as wrong:
        raise InputError(f"{name} — found {text!r}, allowed {wrong}") from None
