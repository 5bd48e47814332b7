"""How does a result leave the package? The flat table of designs, the difference of two results, sources as BibTeX, one design in words."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary, pareto
from dse.errors import InputError, closest
from dse.report import view as V
from dse.report import words as W

Row = dict[str, Any]
DIMS = ("design", "model", "workload", "scenario", "tpot_limit")
FIRST = ("design_id", "family", "chip", "status", "model", "workload", "scenario", "tpot_limit_s", "on_front")
IN_CSV = {k: f"layout.{k}" for k in ("tp", "pp", "cp", "dp", "ep")}
IN_CSV |= {f"format_{k}": f"format.{k}" for k in ("weights", "kv", "compute")}
FIGURES = 7  # significant figures in the table
SAME = 1e-9  # relative difference below which two results are called equal


# --- designs.csv ---------------------------------------------------------------------------------------------------


def _value(x: Any) -> Any:
    """A cell for CSV: text, int where it is whole, float, or None for blank."""
    if isinstance(x, str | bytes | np.str_):
        return str(x) or None
    number = float(x)
    if not np.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.{FIGURES}g}")


def _front_mask(ds: xr.Dataset) -> np.ndarray:
    """1 where a cell is on its family's front of its case: ``on_front`` of the Dataset, or else computed from cost and speed."""
    if "on_front" in ds and float(ds["on_front"].sum()) > 0:
        return np.nan_to_num(ds["on_front"].transpose(*DIMS).values.astype(float)) > 0
    mask = np.zeros([ds.sizes[d] for d in DIMS], dtype=bool)
    for m, model in enumerate(ds["model"].values):
        for w, workload in enumerate(ds["workload"].values):
            for s, scenario in enumerate(ds["scenario"].values):
                v = V.view(ds, V.Case(str(model), str(workload), str(scenario)))
                for family in set(v.family):
                    usable = (v.family == family)[:, None] & v.feasible
                    designs, limits = np.nonzero(usable)
                    chosen = pareto.front(
                        v.grid(V.SPEED)[usable], v.grid(V.COST)[usable], glossary.better(V.SPEED), glossary.better(V.COST)
                    )
                    mask[designs[chosen], m, w, s, limits[chosen]] = True
    return mask


def _columns(ds: xr.Dataset) -> list[tuple[str, str, str | None]]:
    """(column, variable, component) in the contract's order: what is known of the design, its decisions, then the keys of an evaluation."""
    skip = {"family", "chip", "status", "on_front"}
    flat = [str(n) for n, x in ds.data_vars.items() if x.dims == ("design",) and n not in skip]
    decided = V.decisions(ds)
    flat = [*decided, *(n for n in flat if n not in decided)]
    cells = [str(n) for n, x in ds.data_vars.items() if set(x.dims) == set(DIMS) and n not in skip]
    columns: list[tuple[str, str, str | None]] = [(n, n, None) for n in [*flat, *cells]]
    for name, variable in ds.data_vars.items():
        dims = set(variable.dims) - {"component"}
        if "component" in variable.dims and dims in ({"design"}, set(DIMS)):
            other = tuple(d for d in variable.dims if d != "component")
            used = variable.notnull().any(other).values
            columns += [(f"{name}.{c}", str(name), str(c)) for c, keep in zip(ds["component"].values, used, strict=True) if keep]
    return columns


def designs_table(ds: xr.Dataset) -> list[Row]:
    """One row for each design on a front, in the contract's order of columns; SI, seven figures, None for blank.

    Chips that exist are listed wherever they are feasible for the owner of the headline, for comparison; see their ``on_front``.
    """
    front = _front_mask(ds)
    real = ds["status"].values.astype(str) != "hypothetical"
    feasible = np.nan_to_num(ds["feasible"].transpose(*DIMS).values.astype(float)) > 0
    headline_owner = ds["scenario"].values.astype(str) == V.headline(ds)[0].scenario
    keep = feasible & (front | (real[:, None] & headline_owner)[:, None, None, :, None])
    columns = []
    for column, name, component in _columns(ds):
        variable = ds[name].sel(component=component) if component is not None else ds[name]
        columns.append((IN_CSV.get(column, column), variable.values if variable.dims == ("design",) else variable.transpose(*DIMS).values))
    rows = []
    for index in zip(*np.nonzero(keep), strict=True):
        d = index[0]
        where = [str(ds[dim].values[i]) for dim, i in zip(DIMS[1:4], index[1:4], strict=True)]
        known = [str(ds["design"].values[d]), *(str(ds[n].values[d]) for n in ("family", "chip", "status")), *where]
        row: Row = dict(zip(FIRST, [*known, float(ds["tpot_limit"].values[index[4]]), int(front[index])], strict=True))
        row |= {column: _value(values[d] if values.ndim == 1 else values[index]) for column, values in columns}
        rows.append(row)
    return rows


def write_designs_csv(ds: xr.Dataset, path: str | Path) -> Path:
    """Write ``designs.csv``; blank cells where a key does not apply. Returns the path."""
    rows = designs_table(ds)
    head = list(rows[0]) if rows else [*FIRST, *(IN_CSV.get(c, c) for c, _, _ in _columns(ds))]
    target = Path(path)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, head, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return target


# --- difference ----------------------------------------------------------------------------------------------------


def _attr_lines(a: xr.Dataset, b: xr.Dataset) -> list[str]:
    lines = [
        f"{key}: {a.attrs.get(key, '–')} -> {b.attrs.get(key, '–')}"
        for key in ("seed", "budget", "study_sha256", "catalog_sha256", "git_commit", "versions")
        if a.attrs.get(key) != b.attrs.get(key)
    ]
    old, new = ({r["name"]: r for r in V.attr(ds, "assumptions", [])} for ds in (a, b))
    for name in sorted(old.keys() | new.keys()):
        before, after = (rows.get(name, {}).get("value") for rows in (old, new))
        if before != after:
            lines.append(f"assumption {name}: {W.number(before, 4)} -> {W.number(after, 4)}")
    return lines


def _winner_lines(a: xr.Dataset, b: xr.Dataset) -> list[str]:
    lines = []
    shared = [[str(x) for x in a[dim].values if x in b[dim].values] for dim in ("model", "workload", "scenario")]
    for case in (V.Case(m, w, s) for m in shared[0] for w in shared[1] for s in shared[2]):
        v, w = V.view(a, case), V.view(b, case)
        for i, limit in enumerate(v.limits_s):
            match = np.flatnonzero(np.isclose(w.limits_s, limit, rtol=1e-6))
            if not len(match):
                continue
            old, new = V.winners(v, i), V.winners(w, int(match[0]))
            where = f"{case.model}, {case.workload}, {case.scenario}, {W.quantity('tpot_limit', limit)}"
            if old and new and (old[0][0] != new[0][0] or abs(new[0][2] / old[0][2] - 1) > SAME):
                names = (
                    glossary.label(old[0][0]) if old[0][0] == new[0][0] else f"{glossary.label(old[0][0])} -> {glossary.label(new[0][0])}"
                )
                change = W.percent(new[0][2] / old[0][2] - 1, signed=True)
                lines.append(f"{where}: {names}, {W.number(old[0][2])} -> {W.number(new[0][2])} USD/Mtoken ({change})")
            elif bool(old) != bool(new):
                lines.append(f"{where}: {'became infeasible' if old else 'became feasible'}")
    return lines


def diff(ds_a: xr.Dataset, ds_b: xr.Dataset) -> str:
    """What changed from one result to another: inputs, assumptions, cases, winners and their cost."""
    lines = _attr_lines(ds_a, ds_b)
    for dim in ("model", "workload", "scenario", "tpot_limit"):
        old, new = ({str(x) for x in ds[dim].values} for ds in (ds_a, ds_b))
        lines += [f"{dim} {x}: left out" for x in sorted(old - new)] + [f"{dim} {x}: new" for x in sorted(new - old)]
    lines += _winner_lines(ds_a, ds_b)
    return "\n".join(line.replace(W.NARROW, " ") for line in lines) if lines else "No difference in inputs, winners or their cost."


# --- sources -------------------------------------------------------------------------------------------------------


def cite(ds: xr.Dataset) -> str:
    """BibTeX of the sources that the values of this result come from, by key."""
    entries = []
    for key, row in sorted(V.attr(ds, "bibliography", {}).items()):
        fields = ",\n".join(f"  {name} = {{{row[name]}}}" for name in sorted(row) if name != "type" and row[name] not in (None, ""))
        entries.append(f"@{row.get('type', 'misc')}{{{key},\n{fields}\n}}")
    return "\n\n".join(entries)


# --- one design ----------------------------------------------------------------------------------------------------


def _find(ds: xr.Dataset, design_id: str) -> int:
    ids = [str(x) for x in ds["design"].values]
    found = [i for i, x in enumerate(ids) if x == design_id] or [i for i, x in enumerate(ids) if x.startswith(design_id)]
    if len(found) == 1 and design_id:
        return found[0]
    reason = f"stands for {len(found)} designs; give more of it" if found and design_id else f"not in this result{closest(design_id, ids)}"
    raise InputError(f"design — found '{design_id}', {reason}")


def _share_line(v: V.CaseView, title: str, name: str, design: int, limit: int) -> list[str]:
    parts = V.parts(v, name, design, limit)
    whole = sum(parts.values())
    if not parts or whole <= 0:
        return []
    ranked = sorted(parts.items(), key=lambda p: -p[1])
    return [f"  {title}: " + ", ".join(f"{glossary.part(k)} {W.percent(x / whole)}" for k, x in ranked)]


def _cell_lines(ds: xr.Dataset, v: V.CaseView, design: int, limit: int) -> list[str]:
    names = [
        n
        for n in (V.COST, V.SPEED, V.THROUGHPUT, "ttft_s", "usd_per_chip_hour", "j_per_output_token", "facility_power_w", "mfu", "mbu")
        if n in ds
    ]
    lines = [
        f"{V.case_name(ds, v.case)}, {V.name_of(ds, v.case.scenario)}, at most {W.quantity('tpot_limit', v.limits_s[limit])} per token:"
    ]
    if not v.feasible[design, limit]:
        return [*lines, "  infeasible"]
    lines.append(f"  {W.layout(v, design, limit)}")
    lines += [f"  {glossary.label(n)}: {W.quantity(n, x)}" for n in names if (x := V.cell(v, n, design, limit)) is not None]
    lines += _share_line(v, "time", "time_s", design, limit) + _share_line(v, "cost", "cost_usd_per_s", design, limit)
    tight = [
        (x, str(n))
        for n in v.data
        if str(n).startswith("slack_") and n != "slack_divisibility" and (x := V.cell(v, str(n), design, limit)) is not None
    ]
    lines += [f"  tightest limits: {', '.join(f'{n[6:]} {W.percent(x)}' for x, n in sorted(tight)[:3])} left"] if tight else []
    lines.append(f"  limited by: {W.shown('bound', V.cell(v, 'bound', design, limit))}")
    return lines


def decisions_of(ds: xr.Dataset, design_id: str) -> tuple[str, str, dict[str, float | str]]:
    """Family of a design, its chip ("" for a hypothetical one), and its decisions by name. Raises InputError as ``explain_design``."""
    design = _find(ds, design_id)
    found = {name: _value(ds[name].values[design]) for name in V.decisions(ds)}
    chip = str(ds["chip"].values[design]) if "chip" in ds else ""
    return str(ds["family"].values[design]), chip, {name: value for name, value in found.items() if value is not None}


def explain_design(ds: xr.Dataset, design_id: str) -> str:
    """One design in words: what it is, its variables, and for the headline case each limit's cost, time and limits.

    ``design_id`` may be shortened as long as it is unique. Raises InputError for an unknown or ambiguous id.
    """
    design = _find(ds, design_id)
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    lines = [f"{v.ids[design]}: {W.design_name(v, design)} ({glossary.label(str(v.family[design]))}, {v.status[design]})"]
    flat = [*V.decisions(ds), *(str(n) for n, x in ds.data_vars.items() if x.dims == ("design",) and n not in ("family", "chip", "status"))]
    for name in dict.fromkeys(flat):
        value = _value(ds[name].values[design])
        if value is not None and not (name == "below_4_bit" and not value):
            said = value if isinstance(value, str) else W.quantity(name, value)
            lines.append(f"  {glossary.label(name)}: {said}")
    limit = V.limit_index(v, limit_s)
    lines += _share_line(v, "die area", "area_mm2", design, limit) + _share_line(v, "cost of one chip", "unit_cost_usd", design, limit)
    wins = [W.quantity("tpot_limit", v.limits_s[t]) for t in range(len(v.limits_s)) if (r := V.winners(v, t)) and r[0][1] == design]
    lines.append(f"  cheapest of all at: {', '.join(wins) if wins else 'no limit of the headline case'}")
    lines += _cell_lines(ds, v, design, limit)
    return "\n".join(line.replace(W.NARROW, " ") for line in lines)
