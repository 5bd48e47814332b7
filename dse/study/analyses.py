"""Which analyses does a study's report hold, beside the fronts? One ``[[analyses]]`` table each: kind, name, title, what the kind needs.

``KINDS`` says what each kind may be given; the analysis room computes it, the report draws it, both by the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dse.errors import closest
from dse.study.values import Check, WrongError, is_name, list_of, positive, text, time, whole

REQUIRED = object()


@dataclass(frozen=True)
class Parameter:
    """What one key of an analysis may hold; ``names``: ids of that kind of the catalogue, or ``families`` of the study."""

    check: Check
    default: Any = REQUIRED
    names: str = ""


CLUSTER = {"name": text, "chip": text, "tp": whole(1), "pp": whole(1), "dp": whole(1), "ep": whole(1), "formats": list_of(text)}
NEEDED = ("name", "chip", "formats")


def clusters(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Clusters to compare: chip, formats and degrees of each."""
    allowed = 'two or more tables such as { name = "8 GPUs", chip = "amd-mi300x", tp = 8, formats = ["fp8"] }'
    if not isinstance(value, list) or len(value) < len(("one", "another")) or not all(isinstance(x, dict) for x in value):
        raise WrongError(allowed)
    for one in value:
        unknown = [key for key in one if key not in CLUSTER]
        missing = [key for key in NEEDED if key not in one]
        if unknown or missing:
            raise WrongError(
                f"{allowed}; {'without ' + unknown[0] + closest(unknown[0], tuple(CLUSTER)) if unknown else 'with ' + missing[0]}"
            )
    return tuple({key: CLUSTER[key](x) for key, x in one.items()} for one in value)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis of a study; ``given`` is complete and checked."""

    kind: str
    name: str
    title: str
    given: Mapping[str, Any] = field(default_factory=dict)


_POSITIVES, _TIMES = list_of(positive), list_of(time)
_FAMILY = Parameter(text, names="families")
KINDS: dict[str, dict[str, Parameter]] = {
    # cost of a token by requests at the same time and by users of a service
    "demand": {
        "tpot": Parameter(time, None),
        "bred": Parameter(whole(0), 0),  # chips tried for every family, beside those of the search
        "use_time": Parameter(time),  # of one user in a day
        "peak": Parameter(positive),  # busiest hour over the mean of a day
        "users": Parameter(_POSITIVES),
        "contrast": Parameter(list_of(text, empty=True), (), "chips"),
    },
    # one user alone on a chip made for that, against the batched price
    "single_user": {
        "bred": Parameter(whole(0), 0),
        "against": _FAMILY,
        "level": Parameter(positive),  # what counts as engineered away: so many times the batched price
        "reach": Parameter(positive),  # parameters are changed by factors up to this
    },
    # chips that die with their model: volume x life x masks
    "volume": {
        "bred": Parameter(whole(0), 0),
        "family": _FAMILY,
        "against": _FAMILY,
        "wafers": Parameter(_POSITIVES),  # of one model
        "lives": Parameter(_TIMES),
        "masks": Parameter(_POSITIVES),  # that carry the weights of one die
        "beam_rates": Parameter(list_of(positive, empty=True), ()),  # wafer layers that a beam writes in an hour, instead of masks
        "update_life": Parameter(positive),  # times as long a life where adapters in rewritable store keep a model current
    },
    # cost and feasible batch against context
    "context": {"bred": Parameter(whole(0), 0), "tpot": Parameter(time, None), "contexts": Parameter(list_of(whole(1)))},
    # rent, buy, or make a chip: total cost against lifetime tokens
    "ownership": {
        "tpot": Parameter(time, None),
        "made": Parameter(text, names="prices"),
        "bought": Parameter(text, names="prices"),
        "rented": Parameter(text, names="prices"),
        "horizon": Parameter(time),
        "tokens": Parameter(_POSITIVES),
    },
    # fronts of each weight format
    "formats": {"family": _FAMILY},
    # operations for each byte of weight bandwidth
    "balance": {},
    # stated clusters, each in its one layout, against each other
    "clusters": {"clusters": Parameter(clusters)},
}


def read_analyses(tables: Any, families: Mapping[str, Any], problem: Callable[[str, Any, str], None]) -> tuple[Analysis, ...]:
    """The analyses of a study file; ``problem`` is told of every mistake (field, what was found, what is allowed)."""
    if not isinstance(tables, list):
        problem("analyses", repr(tables), "tables, [[analyses]]")
        return ()
    found: list[Analysis] = []
    for number, table in enumerate(tables):
        where = f"analyses[{number}]"
        if not isinstance(table, dict):
            problem(where, repr(table), "a table")
            continue
        one = _analysis(table, where, families, problem)
        if one is not None and one.name in {a.name for a in found}:
            problem(f"{where}.name", repr(one.name), "each name once")
        elif one is not None:
            found.append(one)
    return tuple(found)


def _analysis(
    table: Mapping[str, Any], where: str, families: Mapping[str, Any], problem: Callable[[str, Any, str], None]
) -> Analysis | None:
    kind = table.get("kind")
    if kind not in KINDS:
        problem(f"{where}.kind", repr(kind) if "kind" in table else "nothing", f"{', '.join(KINDS)}{closest(str(kind), KINDS)}")
        return None
    wanted, wrong = KINDS[kind], False
    name, title = table.get("name", kind), table.get("title", "")
    if not is_name(name) or "." in str(name):
        problem(f"{where}.name", repr(name), "letters, digits, '-' and '_'")
        wrong = True
    if not isinstance(title, str) or not title:
        problem(f"{where}.title", repr(title) if title else "nothing", "text in quotes")
        wrong = True
    for key in table:
        if key not in ("kind", "name", "title", *wanted):
            problem(f"{where}.{key}", "an unknown field", f"{', '.join(('kind', 'name', 'title', *wanted))}{closest(key, tuple(wanted))}")
            wrong = True
    given: dict[str, Any] = {}
    for key, parameter in wanted.items():
        try:
            if key not in table and parameter.default is REQUIRED:
                parameter.check(None)
            given[key] = parameter.check(table[key]) if key in table else parameter.default
            if parameter.names == "families" and given[key] not in families:
                raise WrongError(f"a family of the study: {', '.join(families)}{closest(str(given[key]), tuple(families))}")
        except WrongError as error:
            problem(f"{where}.{key}", repr(table[key]) if key in table else "nothing", str(error))
            wrong = True
    return None if wrong else Analysis(kind=kind, name=name, title=title, given=given)


def named(analysis: Analysis) -> dict[str, tuple[str, ...]]:
    """Ids that an analysis names, by kind of the catalogue."""
    found: dict[str, tuple[str, ...]] = {}
    for key, parameter in KINDS[analysis.kind].items():
        if parameter.names and parameter.names != "families":
            value = analysis.given[key]
            found[parameter.names] = found.get(parameter.names, ()) + (value if isinstance(value, tuple) else (value,))
    if "clusters" in analysis.given:
        found["chips"] = tuple(c["chip"] for c in analysis.given["clusters"])
    return found
