"""Which constants are fitted to which rows, with which weak priors? The plan, read from ``hw_catalog/constants/_fit.toml``."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dse.errors import InputError
from dse.paths import data_dir
from dse.units import to_si

Found = TypeVar("Found")
PLAN = Path("constants") / "_fit.toml"


@dataclass(frozen=True)
class Leaf:
    """One constant of a fit: a sum of effects (``effects``) about a centre with a weak prior, or a fixed value."""

    name: str
    value: float  # SI; the centre of the prior, or the fixed value
    share: bool = False  # between 0 and 1 (fitted in the logit), else positive (in the logarithm)
    sd: float = 1.0
    effects: tuple[str, ...] = ("fit@group",)
    fixed: bool = False
    of_cache: bool = False  # the prior's centre is a share of the chip's last-level cache
    spread: float = 1.0  # times which the scatter of its effects about zero is the plan's

    @property
    def base(self) -> float:
        """The prior's centre where the fit works: logit or logarithm."""
        return math.log(self.value / (1 - self.value)) if self.share else math.log(self.value)


@dataclass(frozen=True)
class Fit:
    """One fit: a part of ``Kernels``, its leaves, and the implementations whose rows it takes."""

    part: str
    leaves: tuple[Leaf, ...]
    rows: tuple[tuple[str, ...], ...]
    name: str = ""  # implementation; empty: the chip's own constants

    @property
    def path(self) -> str:
        """Where its leaves stand in a constants file."""
        return f"{self.part}.{self.name}" if self.name else self.part


@dataclass(frozen=True)
class SystemLeaf:
    """One leaf of ``types.System`` fitted to serving runs: for each chip, for each engine, or one for all."""

    name: str
    per: str  # chip, engine or all
    value: float  # SI; the centre of the prior
    sd: float  # of the prior, in the logarithm
    what: str  # latency that it is fitted to, a field of the model's answer
    alone: bool = False  # only for engines with rows that feel it: no mean takes it up


@dataclass(frozen=True)
class Plan:
    """All fits, the chips and groups they run over, and what fills the gaps."""

    procedure: dict[str, float]
    scatter: dict[str, float]  # effect -> standard deviation about zero
    joint: dict[str, list[str]]  # kind of operator -> first words of the parts that are fitted together
    chips: dict[str, str]
    groups: dict[str, list[str]]
    generations: dict[str, str]  # constants file -> architecture generation
    fits: tuple[Fit, ...]
    substitutes: dict[str, dict[str, str]]
    pools: dict[str, list[str]]
    system: tuple[SystemLeaf, ...]
    engine_files: list[str]  # constants files that take the mean over engines
    recent: dict[str, list[str]]  # members of a pool whose kernels a later chip will run
    alike: dict[str, str]  # constants file that takes the system constants of another chip's
    new: frozenset[str] = frozenset()  # constants files of chips that a user adds: each has offsets of its own

    def kind_of(self, fit: Fit) -> str:
        """The kind of operator with which a fit is made in one go; its own path if it is fitted alone."""
        first = fit.part.split(".")[0]
        return next((name for name, parts in self.joint.items() if first in parts), f"{fit.path} {fit.rows}")

    def group_of(self, chip: str) -> str:
        """The group of chips that a constants file belongs to; one of its own if none names it."""
        return next((name for name, members in self.groups.items() if chip in members), chip)


OF, BY = ("kind", "format", "fit"), ("all", "group", "generation", "chip")


def _effects(name: str, raw: dict[str, Any], scatter: dict[str, float], groups: Iterable[str]) -> tuple[str, ...]:
    found = raw.get("effects", ["fit@group"])
    known = [f"{of}@{by}" for of in OF for by in (*BY, *sorted(groups))]
    for place, effect in enumerate(found):
        if effect not in known or (place and effect not in scatter):
            raise InputError(
                f"_fit.toml: {name}.effects — found {effect!r}, allowed {', '.join(known)}, after the first one with a scatter"
            )
    return tuple(found)


def _leaf(name: str, raw: dict[str, Any], scatter: dict[str, float], groups: Iterable[str]) -> Leaf:
    fixed = "fixed" in raw
    value = to_si(float(raw["fixed"] if fixed else raw["prior"]), raw.get("unit", "1"))
    effects, of_cache = _effects(name, raw, scatter, groups), raw.get("of") == "cache"
    return Leaf(name, value, bool(raw.get("share")), float(raw.get("sd", 1.0)), effects, fixed, of_cache, float(raw.get("spread", 1.0)))


def _known(name: str, table: Mapping[str, Found]) -> Found:
    if name not in table:
        raise InputError(f"_fit.toml: leaves — found {name!r}, allowed {', '.join(table)}")
    return table[name]


def _leaves(name: str, table: dict[str, Any], scatter: dict[str, float], groups: Iterable[str]) -> tuple[Leaf, ...]:
    own = dict(_known(name, table))
    base = own.pop("base", None)
    found = {leaf.name: leaf for leaf in _leaves(base, table, scatter, groups)} if base else {}
    return tuple({**found, **{k: _leaf(k, v, scatter, groups) for k, v in own.items()}}.values())


def read_plan(folder: Path | None = None) -> Plan:
    """The plan of a catalogue folder (the shipped one by default).

    Raises:
        InputError: leaves that the plan does not define.
    """
    with ((folder or data_dir("hw_catalog")) / PLAN).open("rb") as file:
        raw = tomllib.load(file)
    scatter = {effect: float(sd) for effect, sd in raw["scatter"].items()}
    places = {*raw["groups"], *raw["generations"].values()}
    leaves = {name: _leaves(name, raw["leaf"], scatter, places) for name in raw["leaf"]}
    fits = [Fit(f["part"], _known(f["leaves"], leaves), tuple(map(tuple, f["rows"])), f.get("name", "")) for f in raw["fit"]]
    system = tuple(
        SystemLeaf(s["leaf"], s["per"], to_si(float(s["prior"]), s.get("unit", "1")), float(s["sd"]), s["fitted_to"], bool(s.get("alone")))
        for s in raw["system"]
    )
    return Plan(
        raw["procedure"],
        scatter,
        raw["joint"],
        raw["chips"],
        raw["groups"],
        raw["generations"],
        tuple(fits),
        raw["substitute"],
        raw["pool"],
        system,
        raw["engines"]["files"],
        raw["recent"],
        raw["alike"],
    )
