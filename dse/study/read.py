"""What does this study file say? A TOML text becomes one ``Study``; all its mistakes come in one InputError."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse import glossary
from dse.errors import InputError, closest
from dse.study.analyses import Analysis, read_analyses
from dse.study.check import check_study
from dse.study.claims import read_rows
from dse.study.record import EXPERT_LAYOUTS, Headline, Layouts, Limits, Search, Study
from dse.study.values import Check, WrongError, flag, list_of, name, objective, one_of, positive, sampler, share, text, time, whole, worth

if TYPE_CHECKING:
    from dse.catalog import Catalog

NO_FAMILY = "other"  # what belongs to no family has no design space
KINDS = ("search", "claims")
_TWO = ("usd_per_million_output_token", "tpot_s")
OBJECTIVES = (_TWO, (*_TWO, "j_per_output_token"), (*_TWO, "ttft_s"), _TWO[:1])  # energy of a token is power over throughput
_REQUIRED = object()


@dataclass
class _Reader:
    """One file while it is read, and what was wrong with it so far."""

    file: str
    problems: list[str]

    def problem(self, where: str, found: Any, allowed: str) -> None:
        self.problems.append(f"{self.file}: {where} — found {found}, allowed {allowed}")

    def value(self, table: Mapping[str, Any], where: str, key: str, check: Check, default: Any = _REQUIRED) -> Any:
        """The checked value of a key; its default (None where there is none) if it is missing or wrong."""
        fallback = None if default is _REQUIRED else default
        try:
            if key in table:
                return check(table[key])
            if default is _REQUIRED:
                check(None)
        except WrongError as wrong:
            self.problem(where + key, repr(table[key]) if key in table else "nothing", str(wrong))
        return fallback

    def table(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        found = table.get(key, {})
        if not isinstance(found, dict):
            self.problem(key, repr(found), f"a table, [{key}]")
            return {}
        return found

    def known(self, table: Mapping[str, Any], where: str, names: tuple[str, ...]) -> None:
        """Every key of the table must be one of the names."""
        for key in table:
            if key not in names:
                self.problem(where + key, "an unknown field", f"{', '.join(names)}{closest(key, names)}")


_FIELDS: dict[str, tuple[Check, Any]] = {
    "name": (name, None),
    "title": (text, _REQUIRED),
    "question": (text, ""),
    "seed": (whole(0), 0),
    "budget": (whole(1), _REQUIRED),
    "max_seconds": (positive, None),
    "models": (list_of(text), _REQUIRED),
    "workloads": (list_of(text), _REQUIRED),
    "scenarios": (list_of(text), _REQUIRED),
    "real_chips": (list_of(text, empty=True), ()),
    "kind": (one_of(*KINDS), "search"),
    "designs_from": (text, ""),
    "objectives": (list_of(objective), ("usd_per_million_output_token", "tpot_s")),
}
_LISTS = ("models", "workloads", "scenarios", "real_chips")
_TABLES = ("limits", "headline", "families", "layouts", "search")
_DEGREE = list_of(whole(1))
_DEGREES = ("tp", "pp", "dp", "batch")
_LAYOUT_FIELDS: dict[str, Check] = {**dict.fromkeys(_DEGREES, _DEGREE), "ep": list_of(one_of(*EXPERT_LAYOUTS))}
_SEARCH_FIELDS: dict[str, Check] = {
    "sampler": sampler,
    "explore": flag,
    "asked": whole(0),
    "bred": whole(0),
    "finish": whole(0),
    "finish_others": whole(0),
    "polish": flag,
    "certify": whole(0),
    "gap": positive,
    "warm_start": text,
    "simulator": text,
}


def parse_study(source: str, path: Path, label: str | None = None, catalog: Catalog | None = None) -> Study:
    """The study in the TOML text ``source`` of the file ``path``, ``label`` in messages; names are checked where a catalogue is given.

    Raises:
        InputError: every mistake, one line each.
    """
    file = label or path.as_posix()
    try:
        raw = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: TOML — {error}") from error
    reader = _Reader(file, [])
    reader.known(raw, "", (*_FIELDS, *_TABLES, "mix", "rows", "analyses"))
    top = {key: reader.value(raw, "", key, check, default) for key, (check, default) in _FIELDS.items()}
    top["name"] = top["name"] or path.stem
    if not reader.problems and tuple(top["objectives"]) not in OBJECTIVES:
        reader.problem("objectives", repr(list(top["objectives"])), " or ".join(str(list(o)) for o in OBJECTIVES))
    limits = _limits(raw, top["workloads"], reader)
    families, layouts, search = _families(raw, reader), _layouts(raw, reader), _search(raw, reader)
    if search.certify and layouts.fixed:
        reader.problem(
            "search.certify", f"{search.certify} beside layouts.{layouts.fixed[0]}", "certify = 0: the bound is not argued for it"
        )
    analyses = read_analyses(raw.get("analyses", []), families, reader.problem)
    headline = _headline(raw, top, limits, analyses, reader)
    rows = read_rows(raw.get("rows", []), reader.problem)
    if search.simulator and (top["kind"] == "claims" or analyses or "mix" in raw or len(top["objectives"] or ()) > 2):
        reader.problem(
            "search.simulator", "claims, analyses, a mix or three objectives beside it", "a plain search of cost and time per token"
        )
    if (top["kind"] == "claims") != bool(raw.get("rows")):
        reader.problem("rows", f"{len(rows)} beside kind = {top['kind']!r}", 'rows with kind = "claims", and none without')
    if not families and not top["real_chips"] and not reader.problems:
        reader.problem("families", "no chip at all", "families to search, such as [families.hbm_gpu], or real_chips = [...]")
    parts: dict[str, Any] = {"limits": limits, "headline": headline, "families": families, "layouts": layouts, "search": search}
    parts |= {"rows": rows, "analyses": analyses, "mix": _mix(raw, top["workloads"], reader)}
    read: dict[str, Any] = {key: () if value is None and key in _LISTS else value for key, value in top.items()}
    study = Study(**read, **parts, text=source, path=path, label=file)
    problems = reader.problems if catalog is None else [*reader.problems, *check_study(study, catalog)]
    if problems:
        raise InputError(problems)
    return study


def _limits(raw: Mapping[str, Any], workloads: tuple[str, ...] | None, reader: _Reader) -> Limits:
    table = reader.table(raw, "limits")
    reader.known(table, "limits.", ("tpot", "ttft", "max_chips"))
    tpot = reader.value(table, "limits.", "tpot", list_of(time))
    most = reader.value(table, "limits.", "max_chips", whole(1), Limits.max_chips)
    ttft = table.get("ttft", {})
    if not isinstance(ttft, dict):
        reader.problem("limits.ttft", repr(ttft), 'a time for each workload, such as { chat = "2 s" }')
        ttft = {}
    reader.known(ttft, "limits.ttft.", workloads if workloads is not None else tuple(ttft))
    times = {key: reader.value(ttft, "limits.ttft.", key, time) for key in ttft}
    return Limits(tpot=tuple(sorted(tpot or (), reverse=True)), ttft=times, max_chips=most)


def _mix(raw: Mapping[str, Any], workloads: tuple[str, ...] | None, reader: _Reader) -> dict[str, float]:
    """Weights of the workloads of a mix, which sum to 1; empty where the study has none."""
    table = reader.table(raw, "mix")
    reader.known(table, "mix.", workloads if workloads is not None else tuple(table))
    weights = {key: reader.value(table, "mix.", key, positive) for key in table if workloads is None or key in workloads}
    whole_ = sum(x for x in weights.values() if x)
    return {key: float(x) / whole_ for key, x in weights.items() if x}


def _headline(raw: Mapping[str, Any], top: Mapping[str, Any], limits: Limits, analyses: tuple[Analysis, ...], reader: _Reader) -> Headline:
    """The headline case: what the file says of it, else the first of each list and the middle limit."""
    table = reader.table(raw, "headline")
    reader.known(table, "headline.", ("model", "workload", "scenario", "tpot", "analysis"))

    def named(key: str) -> str:
        listed = top[key + "s"]
        return reader.value(table, "headline.", key, one_of(*listed) if listed else text, listed[0] if listed else "")

    tpot = reader.value(table, "headline.", "tpot", time, limits.tpot[len(limits.tpot) // 2] if limits.tpot else 0.0)
    if limits.tpot and tpot not in limits.tpot:
        allowed = ", ".join(f"{1e3 * s:g} ms" for s in limits.tpot)
        reader.problem("headline.tpot", repr(table.get("tpot")), f"one of limits.tpot: {allowed}")
    names = tuple(a.name for a in analyses)
    lead = reader.value(table, "headline.", "analysis", one_of(*(names or ("the name of one of its [[analyses]]",))), "")
    return Headline(model=named("model"), workload=named("workload"), scenario=named("scenario"), tpot=tpot, analysis=lead)


def _families(raw: Mapping[str, Any], reader: _Reader) -> dict[str, dict[str, Any]]:
    """By family: what the study says of its design variables; ``nodes`` is a list for the variable ``node``."""
    table = reader.table(raw, "families")
    known = tuple(family for family in glossary.load().families if family != NO_FAMILY)
    reader.known(table, "families.", known)
    found = {}
    for family, choice in table.items():
        where = f"families.{family}"
        if not isinstance(choice, dict):
            reader.problem(where, repr(choice), f"a table, [{where}] (an empty one takes the family's defaults)")
        elif family in known:
            if "nodes" in choice and "node" in choice:
                reader.problem(f"{where}.node", "nodes beside it", "one of them")
            nodes = reader.value(choice, f"{where}.", "nodes", list_of(text), None)
            rest = {key: value for key, value in choice.items() if key != "nodes"}
            found[family] = rest if nodes is None else {"node": list(nodes), **rest}
    return found


def _layouts(raw: Mapping[str, Any], reader: _Reader) -> Layouts:
    table = reader.table(raw, "layouts")
    formats = tuple(glossary.load().formats)
    checks = {**_LAYOUT_FIELDS, **dict.fromkeys(("formats", "widened"), list_of(one_of(*formats)))}
    checks |= {"kv_offload": share, "redundant_experts": whole(0)}
    reader.known(table, "layouts.", (*checks, "quality"))
    stated = table.get("quality", {})
    if not isinstance(stated, dict):
        reader.problem("layouts.quality", repr(stated), "a worth for each format, such as { nvfp4 = 0.97 }")
        stated = {}
    reader.known(stated, "layouts.quality.", formats)
    quality = {key: reader.value(stated, "layouts.quality.", key, worth, 1.0) for key in stated}
    values = {key: reader.value(table, "layouts.", key, check, getattr(Layouts, key)) for key, check in checks.items()}
    return Layouts(**values, quality=quality)


def _search(raw: Mapping[str, Any], reader: _Reader) -> Search:
    table = reader.table(raw, "search")
    reader.known(table, "search.", tuple(_SEARCH_FIELDS))
    if "simulator" in table:
        table = {"finish": 0, **table}  # the headline's own search is of the model
    search = Search(**{key: reader.value(table, "search.", key, check, getattr(Search, key)) for key, check in _SEARCH_FIELDS.items()})
    if search.asked + (search.bred if search.explore else 0) < 1:
        reader.problem("search.asked", "a round without chips", "asked from 1, or explore = true with bred from 1")
    if search.gap is not None and not (search.certify and search.finish and search.explore):
        reader.problem("search.gap", f"{search.gap:g} without a proof to compare with", "explore = true with finish and certify above 0")
    if search.simulator and (search.finish or search.certify):
        reader.problem("search.simulator", "finish or certify beside it, which are of the model", "finish = 0 and certify = 0")
    return search
