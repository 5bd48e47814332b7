"""Which sourced numbers are uncertain, by how much, and what does the catalogue look like when they take other values?

A factor is one sourced number, or the same kernel constant over all weight formats, which moves together. Its distribution follows from
value and 90 % interval: lognormal on each side of the value (the median), or triangular where the interval touches 0 or is a share.
``with_values`` lays other values, also whole arrays of samples, over a catalogue; the usual builders do the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from dse.catalog import Catalog, Quantity, Record
from dse.catalog.kernels import ROOT_FAMILY
from dse.study import Study

Place = tuple[str, str, str]  # kind of record, id, field
TAIL = 1 / 20  # probability below ``low``, and above ``high``
PER_FORMAT = ("gemm.", "moe.")  # kernel constants that exist once for each weight format
ALWAYS = "bf16"  # the output head, and the floor of all other formats
OWN_VALUES = ("price", "bom", "rent", "nre", "nre_model", "wafers", "system_extra_cost", "layer_time", "layer_token_time")
REPORTED = ("tpot_error", "ttft_error")  # say how far predictions lie off; nothing is computed with them
STEPS = 60  # of the bisection for the ends of a triangle


@dataclass(frozen=True)
class Factor:
    """One uncertain input: the places that move together, and what is known of the first of them."""

    name: str
    places: tuple[Place, ...]
    quantity: Quantity

    @property
    def distribution(self) -> str:
        """``lognormal`` or ``triangular``."""
        return shape_of(self.quantity)


def is_uncertain(q: Quantity) -> bool:
    """Whether a number has an interval with some width around its value."""
    return q.low is not None and q.high is not None and q.low <= q.value <= q.high and q.low < q.high


def shape_of(q: Quantity) -> str:
    """Triangular for shares (no unit, nothing above 1) and where an end is 0 or is the value itself; else lognormal."""
    assert q.low is not None and q.high is not None
    share = q.unit == "1" and q.high <= 1
    return "triangular" if share or q.low <= 0 or q.value in (q.low, q.high) else "lognormal"


def quantile(q: Quantity, u: np.ndarray) -> np.ndarray:
    """Value of a number at probability ``u``; ``low`` and ``high`` are its 5 % and 95 % quantiles, up to a bound that they touch.

    >>> q = Quantity(2.0, "USD", 2.0, "USD", 1.0, 8.0, "s", "estimate")
    >>> quantile(q, np.array([0.05, 0.5, 0.95])).round(6).tolist()
    [1.0, 2.0, 8.0]
    """
    assert q.low is not None and q.high is not None
    if shape_of(q) == "lognormal":
        z = ndtri(u) / ndtri(1 - TAIL)
        return q.value * np.where(z > 0, q.high / q.value, q.value / q.low) ** z
    low, high = triangle(q)
    peak = (q.value - low) / (high - low)
    rising = low + np.sqrt(u * (high - low) * (q.value - low))
    falling = high - np.sqrt((1 - u) * (high - low) * (high - q.value))
    return np.where(u < peak, rising, falling)


def triangle(q: Quantity) -> tuple[float, float]:
    """Ends of the triangle with its peak at the value that has 5 % below ``low`` and above ``high``; an end never leaves [0, 1] of a share.

    >>> low, high = triangle(Quantity(0.5, "1", 0.5, "1", 0.4, 0.6, "s", "fit"))
    >>> round(low, 4), round(high, 4)  # 0.1 / (1 - sqrt(2 * 0.05)) to each side
    (0.3538, 0.6462)
    """
    assert q.low is not None and q.high is not None
    least = 0.0 if q.low >= 0 else -np.inf
    most = 1.0 if q.unit == "1" and q.high <= 1 else np.inf
    low, high = q.low, q.high
    for _ in range(STEPS):  # an end that meets its bound stays there, and the other one makes up for it
        if q.low < q.value:
            low = max(low + 1 / 2 * (_end(q.low, q.value, high - low) - low), least)
        if q.high > q.value:
            high = min(high + 1 / 2 * (2 * q.value - _end(2 * q.value - q.high, q.value, high - low) - high), most)
    return float(low), float(high)


def _end(low: float, peak: float, width: float) -> float:
    """The end a of a triangle of this width that leaves the tail below ``low``: (low - a)^2 = tail * width * (peak - a)."""
    half = TAIL * width / 2
    return low - half - np.sqrt(half**2 + 2 * half * (peak - low))


# --- which factors a study has ---------------------------------------------------------------------------------------------


def _pattern(kind: str, name: str) -> str:
    """The name of a constant with its weight format replaced by a star."""
    if kind == "constants" and name.startswith(PER_FORMAT):
        head, _, leaf = name.split(".", 2)
        return f"{head}.*.{leaf}"
    return name


def _counts(name: str, wanted: set[str] | None) -> bool:
    """Whether a kernel constant is read, and for a format that occurs."""
    if not name.startswith(PER_FORMAT):
        return True
    words = name.split(".")
    return len(words) == 3 and (wanted is None or words[1] in wanted)


def _constants_chain(catalog: Catalog, identity: str) -> list[str]:
    """Files that a set of constants takes leaves from, nearest first."""
    found, queue = [], [identity]
    while queue:
        name = queue.pop(0)
        if name in catalog.records["constants"] and name not in found:
            found.append(name)
            meta = catalog.records["constants"][name].meta
            queue += [str(x) for x in (meta.get("base"), meta.get("family"), ROOT_FAMILY) if x]
    return found


def _price_records(catalog: Catalog, scenario: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    name: str | None = scenario
    while name and ("prices", name) not in found:
        record = catalog.records["prices"][name]
        found.append(("prices", name))
        found += [(kind, str(record.meta[key])) for key, kind in (("site", "sites"), ("network", "networks")) if key in record.meta]
        name = record.meta.get("base")
    return found


def records_of(study: Study, catalog: Catalog) -> list[tuple[str, str]]:
    """(kind, id) of every file that the chips and prices of a study are built from."""
    found = [pair for s in study.scenarios for pair in _price_records(catalog, s)]
    found += [("families", f) for f in study.families]
    found += [("constants", c) for f in study.families for c in _constants_chain(catalog, f)]
    found += [("technology", t) for t in catalog.records["technology"]]
    found += [("memories", m) for m in catalog.records["memories"]]
    found += [("processes", p) for p in catalog.records["processes"]]
    found += [("chips", c) for c in study.real_chips]
    found += [("constants", c) for chip in study.real_chips for c in _constants_chain(catalog, catalog.constants_of(chip)[0])]
    found += [("defaults", str(d)) for d in catalog.records["defaults"]]
    return list(dict.fromkeys(found))


def factors_of(study: Study, catalog: Catalog, kernels: Iterable[str] | None = None) -> list[Factor]:
    """Every uncertain number that the chips and prices of a study are built from, each once, however many chips share it.

    Args:
        study, catalog: What is asked, with what.
        kernels: Weight formats (as kernels see them) that occur; constants of others move nothing and are left out. None: all.
    """
    wanted = None if kernels is None else {*kernels, ALWAYS}
    found: dict[str, list[Place]] = {}
    for kind, identity in records_of(study, catalog):
        for name, q in catalog.records[kind][identity].values.items():
            skipped = name.startswith("range.") or name in REPORTED or (kind == "chips" and name not in OWN_VALUES)
            if is_uncertain(q) and not skipped and (kind != "constants" or _counts(name, wanted)):
                found.setdefault(f"{kind} {identity}: {_pattern(kind, name)}", []).append((kind, identity, name))
    return [Factor(name, tuple(places), _quantity(catalog, places[0])) for name, places in found.items()]


def _quantity(catalog: Catalog, place: Place) -> Quantity:
    kind, identity, name = place
    return catalog.records[kind][identity].values[name]


# --- the catalogue with other values ---------------------------------------------------------------------------------------


def with_values(catalog: Catalog, values: Mapping[Place, Any]) -> Catalog:
    """The catalogue with other SI values, numbers or arrays, at some places; everything else is shared."""
    records: dict[str, dict[str, Record]] = {kind: dict(of_kind) for kind, of_kind in catalog.records.items()}
    changed: dict[tuple[str, str], dict[str, Any]] = {}
    for (kind, identity, name), value in values.items():
        changed.setdefault((kind, identity), {})[name] = value
    for (kind, identity), new in changed.items():
        record = records[kind][identity]
        records[kind][identity] = replace(record, values=record.values | {n: replace(record.values[n], value=x) for n, x in new.items()})
    return Catalog(records, catalog.sources, catalog.files)


@dataclass(frozen=True)
class Sampler:
    """All uncertain places of some factors, in arrays: which factor each follows, and its distribution."""

    places: tuple[Place, ...]
    follows: np.ndarray  # position of the factor
    lognormal: np.ndarray
    value: np.ndarray
    down: np.ndarray  # lognormal: logarithm of the value over ``low``; else the lower end of the triangle
    up: np.ndarray

    @classmethod
    def of(cls, catalog: Catalog, factors: Sequence[Factor]) -> Sampler:
        """The sampler of some factors of a catalogue."""
        found = [(p, k, q) for k, f in enumerate(factors) for p in f.places if is_uncertain(q := _quantity(catalog, p))]
        logs = [shape_of(q) == "lognormal" for _, _, q in found]
        ends = [
            (np.log(q.value / (q.low or 1.0)), np.log((q.high or 1.0) / q.value)) if log else triangle(q)
            for (_, _, q), log in zip(found, logs, strict=True)
        ]
        return cls(
            places=tuple(p for p, _, _ in found),
            follows=np.array([k for _, k, _ in found], int),
            lognormal=np.array(logs, bool),
            value=np.array([q.value for _, _, q in found]),
            down=np.array([e[0] for e in ends]),
            up=np.array([e[1] for e in ends]),
        )

    def values(self, u: np.ndarray) -> np.ndarray:
        """Values of all places, array (places, samples), at quantiles ``u`` of the factors, array (samples, factors)."""
        out = np.empty((len(self.places), len(u)))
        at, v = self.lognormal, self.value
        z = (ndtri(np.ascontiguousarray(u.T)) / ndtri(1 - TAIL))[self.follows[at]]
        out[at] = v[at][:, None] * np.exp(np.where(z > 0, self.up[at][:, None], self.down[at][:, None]) * z)
        at = ~at
        p, low, peak, high = u.T[self.follows[at]], self.down[at][:, None], v[at][:, None], self.up[at][:, None]
        rising = low + np.sqrt(p * (high - low) * (peak - low))
        falling = high - np.sqrt((1 - p) * (high - low) * (high - peak))
        out[at] = np.where(p * (high - low) < peak - low, rising, falling)
        return out

    def catalog(self, catalog: Catalog, u: np.ndarray) -> Catalog:
        """The catalogue with every factor at its quantiles ``u``, array (samples, factors); values become columns (samples, 1)."""
        return with_values(catalog, {p: x[:, None] for p, x in zip(self.places, self.values(u), strict=True)})


def scaled(catalog: Catalog, places: Iterable[Place], factor: Any) -> Catalog:
    """The catalogue with the numbers at some places multiplied by a factor (a number, or an array that broadcasts)."""
    return with_values(catalog, {p: _quantity(catalog, p).value * factor for p in places})
