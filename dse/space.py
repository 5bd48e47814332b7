"""Which designs may a search look at? Declared variables, and the way from the unit cube to designs and back.

A design is a mapping from variable to number; a choice is the position of its name among the family's ``choices``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.errors import InputError, closest

ID_DIGITS = 12  # hexadecimal digits of a design id


@dataclass(frozen=True)
class Variable:
    """One design variable. ``choices`` are all names that the family knows (their positions are values), ``allowed`` those searched."""

    name: str
    low: float = 0.0
    high: float = 1.0
    kind: str = "real"  # real | int | choice
    choices: tuple[str, ...] = ()
    log: bool = False
    unit: str = "1"
    allowed: tuple[str, ...] = ()
    default: float | None = None
    absent_with: tuple[str, str] | None = None  # a choice and its name with which this variable means nothing: it takes its default then

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a choice that a search may take."""
        return self.allowed or self.choices

    @property
    def size(self) -> float:
        """Number of values; infinite for a real variable that is not fixed."""
        if self.kind == "choice":
            return len(self.names)
        return 1 if self.low == self.high else np.inf if self.kind == "real" else round(self.high - self.low) + 1


@dataclass(frozen=True)
class Space:
    """The design space of one family."""

    family: str
    variables: tuple[Variable, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.variables)

    @property
    def dimension(self) -> int:
        return len(self.variables)

    def __getitem__(self, name: str) -> Variable:
        found = {variable.name: variable for variable in self.variables}
        if name not in found:
            raise InputError(f"{self.family}: design variable — found '{name}', allowed {', '.join(found)}{closest(name, found)}")
        return found[name]

    def decode(self, cube: np.ndarray) -> dict[str, np.ndarray]:
        """Designs at points of the unit cube: array (n, d) to variable -> array (n,). Points outside are moved to the face."""
        points = np.clip(np.asarray(cube, dtype=float), 0.0, 1.0)
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise InputError(f"{self.family}: points — found shape {points.shape}, allowed (n, {self.dimension})")
        return self.canonical({variable.name: _decode(variable, points[:, i]) for i, variable in enumerate(self.variables)})

    def canonical(self, values: dict[str, Any]) -> dict[str, Any]:
        """The same designs with every variable that means nothing at its default, so that equal designs have one id."""
        out = dict(values)
        for variable in self.variables:
            if variable.absent_with is not None:
                choice, name = variable.absent_with
                absent = np.asarray(values[choice]) == self[choice].choices.index(name)
                chosen = np.where(absent, _default(variable), values[variable.name])
                out[variable.name] = chosen if chosen.ndim else float(chosen)
        return out

    def encode(self, values: Mapping[str, Any]) -> np.ndarray:
        """Points of the unit cube of designs: variable -> array (n,) to (n, d); counts and choices go to the middle of their cell."""
        columns = [np.atleast_1d(_encode(variable, np.asarray(values[variable.name], dtype=float))) for variable in self.variables]
        return np.stack(np.broadcast_arrays(*columns), axis=1)

    def defaults(self) -> dict[str, float]:
        """One design in the middle of what is known: the declared defaults."""
        return {variable.name: _default(variable) for variable in self.variables}

    def named(self, values: Mapping[str, Any], index: int = 0) -> dict[str, float | int | str]:
        """One design as a person writes it: names for choices, whole numbers for counts."""
        return {v.name: _named(v, float(np.ravel(values[v.name])[index if np.size(values[v.name]) > 1 else 0])) for v in self.variables}

    def from_named(self, named: Mapping[str, Any]) -> dict[str, float]:
        """The numbers of a design written with names; what is left out takes its default. Raises InputError with every problem."""
        problems = [f"{self.family}: {n} — found an unknown design variable{closest(n, self.names)}" for n in named if n not in self.names]
        out = self.defaults()
        for variable in self.variables:
            if variable.name in named:
                problems += _put(variable, named[variable.name], out, self.family)
        if problems:
            raise InputError(problems)
        return self.canonical(out)

    def ids(self, values: Mapping[str, Any]) -> list[str]:
        """Id of each design: the first hexadecimal digits of a hash of its family and decisions."""
        count = max(np.size(values[name]) for name in self.names)
        return [design_id(self.family, self.named(values, i)) for i in range(count)]


def design_id(family: str, named: Mapping[str, Any]) -> str:
    """The same decisions have the same id everywhere.

    >>> design_id("sram", {"dies": 2, "node": "n5"}) == design_id("sram", {"node": "n5", "dies": 2.0})
    True
    """
    plain = {key: value if isinstance(value, str) else f"{float(value):.9g}" for key, value in named.items()}
    text = json.dumps([family, sorted(plain.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def take(items: Sequence[Any], index: Any) -> Any:
    """One pytree whose leaves are arrays: leaf i is that of ``items[index[i]]``. For processes chosen by design, outside of jit."""
    import jax

    position = np.asarray(index, dtype=int)
    return jax.tree.map(lambda *leaves: np.asarray(leaves, dtype=float)[position], *items)


def space_of(family: Any, bounds: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any] | None = None) -> Space:
    """The design space of a family: its variables, the catalogue's range of each, and what a study says otherwise.

    Args:
        family: a ``chips.Family`` (name, variables).
        bounds: ``catalog.silicon.build_range(record)``.
        overrides: variable -> a value or name (fixed), ``[low, high]`` or a list of names, or a table with ``low``, ``high``, ``default``.

    Raises:
        InputError: every unknown variable, empty range or unknown name.
    """
    changes = dict(overrides or {})
    known = [variable.name for variable in family.variables]
    problems = [
        f"{family.name}: {name} — found an unknown design variable, allowed {', '.join(known)}{closest(name, known)}"
        for name in [*changes, *bounds]
        if name not in known
    ]
    variables = []
    for variable in family.variables:
        ranged = replace(variable, **{k: v for k, v in bounds.get(variable.name, {}).items() if v is not None})
        problems += _range_problems(ranged, family.name)
        variables.append(_override(ranged, changes[variable.name], family.name, problems) if variable.name in changes else ranged)
    if problems:
        raise InputError(problems)
    return Space(family.name, tuple(variables))


def _decode(variable: Variable, u: np.ndarray) -> np.ndarray:
    if variable.kind == "choice":
        positions = np.array([variable.choices.index(name) for name in variable.names], dtype=float)
        return positions[np.minimum((u * len(positions)).astype(int), len(positions) - 1)]
    if variable.kind == "int":
        steps = round(variable.high - variable.low) + 1
        return variable.low + np.minimum(np.floor(u * steps), steps - 1)
    if variable.log:
        exact = variable.low * (variable.high / variable.low) ** u
        return np.clip(exact, variable.low, variable.high)
    return variable.low + u * (variable.high - variable.low)


def _encode(variable: Variable, value: np.ndarray) -> np.ndarray:
    if variable.kind == "choice":
        order = [variable.choices.index(name) for name in variable.names]
        cell = np.argmin(np.abs(value[..., None] - np.array(order, dtype=float)), axis=-1).astype(float)  # nearest of the allowed
        return (cell + 1 / 2) / len(order)
    if variable.kind == "int":
        return (value - variable.low + 1 / 2) / (round(variable.high - variable.low) + 1)
    if variable.low == variable.high:
        return np.full(value.shape, 1 / 2)
    if variable.log:
        return np.log(value / variable.low) / np.log(variable.high / variable.low)
    return (value - variable.low) / (variable.high - variable.low)


def _default(variable: Variable) -> float:
    if variable.kind == "choice":
        return float(variable.choices.index(variable.names[0]))
    middle = np.sqrt(variable.low * variable.high) if variable.log else (variable.low + variable.high) / 2
    value = middle if variable.default is None else variable.default
    return float(np.clip(np.floor(value) if variable.kind == "int" else value, variable.low, variable.high))


def _named(variable: Variable, value: float) -> float | int | str:
    if variable.kind == "choice":
        return variable.choices[round(value)]
    return round(value) if variable.kind == "int" else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _put(variable: Variable, value: Any, out: dict[str, float], family: str) -> list[str]:
    if variable.kind == "choice":
        if value not in variable.choices:
            near = closest(str(value), variable.choices)
            return [f"{family}: {variable.name} — found {value!r}, allowed {', '.join(variable.choices)}{near}"]
        out[variable.name] = float(variable.choices.index(value))
        return []
    if not _is_number(value) or (variable.kind == "int" and float(value) != round(float(value))):
        whole = "whole " if variable.kind == "int" else ""
        return [f"{family}: {variable.name} — found {value!r}, allowed a {whole}number in {variable.unit}"]
    out[variable.name] = float(value)
    return []


def _range_problems(variable: Variable, family: str) -> list[str]:
    if variable.kind == "choice":
        wrong = [name for name in variable.names if name not in variable.choices]
        near = closest(str(wrong[0]), variable.choices) if wrong else ""
        what = f"{family}: {variable.name} — found {wrong or 'nothing'}, allowed {', '.join(variable.choices)}{near}"
        return [what] if wrong or not variable.names else []
    fine = variable.low <= variable.high and (variable.low > 0 or not variable.log)
    return [] if fine else [f"{family}: {variable.name} — found the range {variable.low:g} to {variable.high:g}, allowed low <= high"]


def _override(variable: Variable, given: Any, family: str, problems: list[str]) -> Variable:
    if variable.kind == "choice":
        names = given.get("choices", variable.names) if isinstance(given, Mapping) else given
        changed = replace(variable, allowed=(names,) if isinstance(names, str) else tuple(names))
    else:
        table = given if isinstance(given, Mapping) else _as_range(given)
        unknown = [key for key in table if key not in ("low", "high", "default")]
        if unknown or not all(_is_number(number) for number in table.values()):
            problems.append(f"{family}: {variable.name} — found {given!r}, allowed a number in {variable.unit}, or [low, high]")
            return variable
        limits = {key: float(number) for key, number in table.items()}
        changed = replace(variable, **limits)  # type: ignore[arg-type]
    problems += _range_problems(changed, family)
    return changed


def _as_range(given: Any) -> dict[str, Any]:
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 2:
        return {"low": given[0], "high": given[1]}
    return {"low": given, "high": given, "default": given}
