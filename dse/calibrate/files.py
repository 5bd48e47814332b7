"""How do fitted constants get into the catalogue? As lines of the constants files; what is not fitted stays as it was written."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from dse.calibrate.fit import Constant, Fitted, Residual
from dse.calibrate.plan import Plan
from dse.types import AllReduce, Collective
from dse.units import to_si
from dse.validate.operators import RECORDS

SOURCE = "dse-operator-fit"
UNITS = {
    "_s": "us",
    "first_token_s": "ms",
    "serial_s_per_k": "ns",
    "serial_s_per_token": "ns",
    "head_s": "ns",
    "_token": "token",
    "_flop": "FLOP",
    "_byte": "MB",
}
HEAD = re.compile(r'^[\w."/-]+ = \{ value = ')

Lines = dict[str, str]


def unit_of(leaf: str) -> str:
    """Unit in which a leaf is written.

    >>> unit_of("floor_s"), unit_of("head_s"), unit_of("efficiency")
    ('us', 'ns', '1')
    """
    fits = [ending for ending in UNITS if leaf.endswith(ending)]
    return UNITS[max(fits, key=len)] if fits else "1"


def key_of(path: str) -> str:
    """A dotted path as TOML keys: parts with other characters in quotes.

    >>> key_of("gemm.bf16.vidur/sarathi.floor_s")
    'gemm.bf16."vidur/sarathi".floor_s'
    """
    return ".".join(p if re.fullmatch(r"[\w-]+", p) else f'"{p}"' for p in path.split("."))


def _number(value: float) -> str:
    return f"{value:.4g}"


def line(path: str, constant: Constant, kind: str, note: str = "", source: str = SOURCE) -> str:
    """One line of a constants file."""
    leaf = path.rsplit(".", 1)[1]
    unit = unit_of(leaf)
    value, low, high = (_number(v / to_si(1.0, unit)) for v in (constant.value, constant.low, constant.high))
    more = f', note = "{note}"' if note else ""
    known = f'value = {value}, unit = "{unit}", source = "{source}", kind = "{kind}", low = {low}, high = {high}'
    return f"{key_of(path)} = {{ {known}{more} }}"


def _percent(x: float) -> str:
    return "-" if math.isnan(x) else f"{100 * x:.1f} %"


def residual_note(r: Residual) -> str:
    """Residuals of a fit in words."""
    return (
        f"error of the fit: median {_percent(r.median)}, p90 {_percent(r.p90)}, n {r.n}; "
        f"median with shapes left out {_percent(r.by_shape)}, with this chip left out {_percent(r.same)}, "
        f"with its generation left out {_percent(r.other)}"
    )


def _fitted(results: Sequence[Fitted]) -> tuple[dict[str, dict[str, dict[str, Constant]]], dict[str, dict[str, str]]]:
    """Constants and notes by file and path of the part."""
    constants: dict[str, dict[str, dict[str, Constant]]] = {}
    notes: dict[str, dict[str, str]] = {}
    for result in results:
        for file, leaves in result.constants.items():
            constants.setdefault(file, {})[result.fit.path] = leaves
            notes.setdefault(file, {})[result.fit.path] = residual_note(result.residuals[file])
    return constants, notes


def is_share(leaf: str) -> bool:
    """Whether a constant lies between 0 and 1: all efficiencies but that of exponentials, which may use more units than are counted.

    >>> is_share("memory_efficiency"), is_share("resident_share"), is_share("exp_efficiency"), is_share("floor_s")
    (True, True, False, False)
    """
    return leaf.endswith("_share") or ("efficiency" in leaf and "exp" not in leaf)


def wider(c: Constant, factor: float, share: bool) -> Constant:
    """The same value with a wider interval."""
    top = max(c.high, c.value * factor)
    return Constant(c.value, min(c.low, c.value / factor), min(top, 1.0) if share else top)


def _substitutes(constants: dict[str, dict[str, dict[str, Constant]]], notes: dict[str, dict[str, str]], plan: Plan) -> None:
    """Fill parts that a chip was not measured on from where the plan says."""
    factor = plan.procedure["substitute_interval"]
    for file, table in plan.substitutes.items():
        for part, origin in table.items():
            other, _, path = origin.rpartition(":")
            found = constants.get(other or file, {}).get(path)
            if found is None or part in constants.get(file, {}):
                continue
            leaves = {name: wider(c, factor, is_share(name)) for name, c in found.items()}
            constants.setdefault(file, {})[part] = leaves
            notes.setdefault(file, {})[part] = f"not measured on this chip: as {path}" + (f" of {other}" if other else "")


def pooled(members: Sequence[dict[str, Constant]], centre: Sequence[dict[str, Constant]] = ()) -> dict[str, Constant]:
    """Geometric mean of each leaf over chips (over some, ``centre``); low and high are the extremes of the chips' intervals."""
    made = {}
    for name in members[0]:
        every = [m[name] for m in members]
        each = [m[name] for m in centre] or every
        zero = any(c.value <= 0 for c in each)
        mean = sum(c.value for c in each) / len(each) if zero else math.exp(sum(math.log(c.value) for c in each) / len(each))
        made[name] = Constant(mean, min(c.low for c in every), max(c.high for c in every))
    return made


def around(value: float, c: Constant) -> Constant:
    """A value with the interval of another, widened to hold it."""
    return Constant(value, min(c.low, value), max(c.high, value))


def tables(results: Sequence[Fitted], plan: Plan, pools: bool = True) -> dict[str, Lines]:
    """Lines by file and path of the leaf; substitutes and pools only where every fit of the plan is among the results."""
    constants, notes = _fitted(results)
    own = {file: set(parts) for file, parts in constants.items()}
    centres = {(r.fit.path, group): values for r in results for group, values in r.centres.items()}
    complete = pools and {fit.path for fit in plan.fits} <= {r.fit.path for r in results}
    if complete:
        _substitutes(constants, notes, plan)
    made: dict[str, Lines] = {}
    for file, parts in constants.items():
        for path, leaves in parts.items():
            kind = "fit" if path in own.get(file, set()) else "estimate"
            for i, (leaf, c) in enumerate(leaves.items()):
                note = notes[file][path] if i == 0 else ""
                made.setdefault(file, {})[f"{path}.{leaf}"] = line(f"{path}.{leaf}", c, kind, note)
    for file, members in plan.pools.items() if complete else ():
        for path in dict.fromkeys(p for m in members for p in constants.get(m, {})):
            measured = [m for m in members if path in own.get(m, ())]
            have = measured or [m for m in members if path in constants.get(m, {})]
            exchange = RECORDS[path.split(".")[0]] in (AllReduce, Collective)
            recent = [] if exchange else [m for m in plan.recent.get(file, ()) if m in measured]
            note, kind = f"pooled over {', '.join(recent or have)}", "fit" if measured else "estimate"
            if len(recent) < len(have) and recent:
                note += f"; low and high over {', '.join(have)}"
            mean = pooled(*([constants[m][path] for m in each] for each in (have, recent)))
            centre = centres.get((path, plan.group_of(recent[0]))) if recent else None
            if centre and len({plan.group_of(m) for m in recent}) == 1:
                mean = {leaf: around(centre[leaf], c) for leaf, c in mean.items()}
                note = f"centre of {', '.join(recent)}, without what sets one apart" + (note[note.index(";") :] if ";" in note else "")
            for i, (leaf, c) in enumerate(mean.items()):
                made.setdefault(file, {})[f"{path}.{leaf}"] = line(f"{path}.{leaf}", c, kind, "" if i else note)
    return {file: lines for file, lines in made.items() if file not in plan.chips or any(file in g for g in plan.groups.values())}


def _path(text: str) -> str:
    """Dotted path of a line of a constants file; empty for other lines."""
    if not HEAD.match(text):
        return ""
    return text.split(" = ", 1)[0].replace('"', "")


def rewrite(results: Sequence[Fitted], plan: Plan, folder: Path) -> list[Path]:
    """Replace fitted lines in the files of a folder and append new ones; other lines stay as they are."""
    return put_lines(tables(results, plan), folder)


def put_lines(made: dict[str, Lines], folder: Path) -> list[Path]:
    """Put lines into the files of a folder: in place where the leaf is there, else at the end."""
    done = []
    for name, lines in made.items():
        path = folder / f"{name}.toml"
        kept, written = [], set()
        for text in path.read_text(encoding="utf-8").splitlines():
            leaf = _path(text)
            kept.append(lines.get(leaf, text) if leaf else text)
            written.add(leaf)
        kept += [text for leaf, text in lines.items() if leaf not in written]
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
        done.append(path)
    return done


def _values(path: Path) -> dict[str, float]:
    def walk(table: dict, prefix: str):
        for key, value in table.items():
            if isinstance(value, dict) and "value" in value:
                yield f"{prefix}{key}", float(value["value"])
            elif isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    return dict(walk(tomllib.loads(path.read_text(encoding="utf-8")), ""))


def differences(results: Sequence[Fitted], plan: Plan, folder: Path) -> list[str]:
    """Lines for constants that differ between the files and a fit by more than the plan's tolerance."""
    found = []
    for name, lines in tables(results, plan).items():
        committed = _values(folder / f"{name}.toml")
        for path, text in lines.items():
            new = float(re.search(r"value = ([^,]+),", text)[1])  # type: ignore[index]
            old = committed.get(path, math.nan)
            if not abs(new - old) <= plan.procedure["tolerance"] * max(abs(new), abs(old)):
                found.append(f"{name}.toml: {path} — found {old:.4g}, a new fit gives {new:.4g}; run dse calibrate to rewrite")
    return found
