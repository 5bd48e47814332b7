"""What did a study find? One xarray Dataset with units, provenance and bibliography: built, saved whole or not at all, loaded, checked."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from dse import glossary
from dse.errors import DseError, InputError, closest
from dse.evaluate import Metrics, as_floats, evaluate
from dse.present import BOUNDS, FOLLOW_TPOT
from dse.types import CostParts, Deployment, MemoryParts, PerFormat, SlackParts, TimeParts

DIMS = ("design", "model", "workload", "scenario", "tpot_limit")
SCALARS = (
    "chips tpot_s ttft_s interactivity_token_per_s output_token_per_s_per_chip total_token_per_s_per_chip usd_per_million_output_token "
    "usd_per_million_token usd_per_chip_hour j_per_output_token facility_power_w mfu mbu mfu_prefill"
).split()
UNSERVED = ("tpot_p99_s", "ttft_p99_s")  # known with an arrival process only
INTERVAL = {**dict.fromkeys(FOLLOW_TPOT, "tpot_error"), "ttft_s": "ttft_error"}  # which error of the model each key follows
TEXT = ("bound", "bound_prefill", "format_weights", "format_kv", "format_compute", "constants")
LAYOUT = ("tp", "pp", "cp", "dp", "ep", "batch")
PARTS = {"time_s": TimeParts, "cost_usd_per_s": CostParts, "memory_byte_per_chip": MemoryParts}


@dataclass(frozen=True)
class Design:
    """A chip as a row of the result: its decisions and what is known of its body."""

    id: str
    family: str
    chip: str
    status: str
    below_4_bit: bool = False
    decisions: Mapping[str, float | int | str] = field(default_factory=dict)
    area_mm2: Mapping[str, float] = field(default_factory=dict)
    unit_cost_usd: Mapping[str, float] = field(default_factory=dict)
    body: Mapping[str, float] = field(default_factory=dict)  # tdp_w, memory_capacity_byte, ...


def _components(designs: Sequence[Design]) -> list[str]:
    names: dict[str, None] = {}
    for cls in PARTS.values():
        names.update(dict.fromkeys(f.name for f in fields(cls)))
    for d in designs:
        names.update(dict.fromkeys([*d.area_mm2, *d.unit_cost_usd]))
    return list(names)


def _attrs(name: str) -> dict[str, Any]:
    end, _, key = name.partition(".")
    if key:  # an end of an interval
        known = _attrs(key)
        return {"units": known["units"], "long_name": f"{known['long_name']}, {end} end of 90 %", "better": known["better"]}
    try:
        return glossary.attrs(name)
    except (KeyError, InputError):
        return {"long_name": name.replace("_", " ")}


def _design_variables(designs: Sequence[Design], components: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "family": ("design", np.array([d.family for d in designs], object)),
        "chip": ("design", np.array([d.chip for d in designs], object)),
        "status": ("design", np.array([d.status for d in designs], object)),
        "below_4_bit": ("design", np.array([float(d.below_4_bit) for d in designs])),
    }
    decisions = dict.fromkeys(name for d in designs for name in d.decisions)
    for name in decisions:
        values = [d.decisions.get(name) for d in designs]
        text = any(isinstance(v, str) for v in values)
        column = np.array(
            [("" if v is None else str(v)) if text else (np.nan if v is None else float(v)) for v in values], object if text else float
        )
        found[name] = ("design", column, {"role": "decision"})
    for name in dict.fromkeys(name for d in designs for name in d.body):
        if name not in found:
            found[name] = ("design", np.array([d.body.get(name, np.nan) for d in designs], float))
    for name in ("area_mm2", "unit_cost_usd"):
        table = [[getattr(d, name).get(c, np.nan) for c in components] for d in designs]
        found[name] = (("design", "component"), np.array(table, float))
    return found


@dataclass(frozen=True)
class Cells:
    """Where evaluated deployments belong: positions along the five dimensions, and their metrics (leaves ``(n,)``)."""

    index: tuple[np.ndarray, ...]  # five arrays (n,)
    metrics: Metrics
    format_weights: np.ndarray
    format_kv: np.ndarray
    valid: np.ndarray  # limits are met by the exact evaluation too


def _fill(arrays: dict[str, np.ndarray], cells: Cells, components: Sequence[str]) -> None:
    keep = cells.valid
    where = tuple(i[keep] for i in cells.index)
    m = cells.metrics

    def column(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value), keep.shape)[keep]

    arrays["feasible"][where] = 1.0
    for name in SCALARS:
        arrays[name][where] = column(getattr(m, name))
    for name in LAYOUT:
        arrays[name][where] = column(m.batch if name == "batch" else 1.0 if getattr(m.layout, name) is None else getattr(m.layout, name))
    for name, cls in PARTS.items():
        for f in fields(cls):
            arrays[name][(*where, np.full(where[0].shape, components.index(f.name)))] = column(getattr(getattr(m, name), f.name))
    for f in fields(SlackParts):
        arrays[f"slack_{f.name}"][where] = column(getattr(m.slack, f.name))
    arrays["bound"][where] = np.array(BOUNDS, object)[column(m.bound)]
    arrays["bound_prefill"][where] = np.array(BOUNDS, object)[column(m.bound_prefill)]
    arrays["format_weights"][where] = cells.format_weights[keep]
    arrays["format_kv"][where] = cells.format_kv[keep]
    names = [f.name for f in fields(PerFormat)]
    hot = np.stack([column(getattr(m.format.compute, name)) for name in names])
    arrays["format_compute"][where] = np.array(names, object)[hot.argmax(axis=0)]
    arrays["constants"][where] = np.where(column(m.calibrated) > 0, "calibrated", "ideal").astype(object)
    for name, error in INTERVAL.items():
        factor = np.where(column(getattr(m, error)) > 0, 1 + column(getattr(m, error)), np.nan)
        arrays[f"low.{name}"][where] = column(getattr(m, name)) / factor
        arrays[f"high.{name}"][where] = column(getattr(m, name)) * factor


def on_front(cost: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """1 where a design is the cheapest of its family at a limit and no tighter limit is met at the same cost or less.

    Args:
        cost: (design, model, workload, scenario, tpot_limit), nan where infeasible; limits from loose to tight.
        families: Family of each design; a real chip competes with itself alone.
    """
    front = np.zeros(cost.shape)
    filled = np.where(np.isfinite(cost), cost, np.inf)
    for family in dict.fromkeys(families):
        rows = [i for i, f in enumerate(families) if f == family]
        block = filled[rows]
        best = block.min(axis=0)
        tighter = np.minimum.accumulate(best[..., ::-1], axis=-1)[..., ::-1]
        beaten = np.concatenate([tighter[..., 1:] <= best[..., :-1], np.zeros_like(best[..., :1], bool)], axis=-1)
        first = np.arange(len(rows)).reshape(-1, 1, 1, 1, 1) == block.argmin(axis=0)[None]
        front[rows] = first & np.isfinite(best)[None] & ~beaten[None]
    return front


def to_dataset(
    designs: Sequence[Design], coordinates: Mapping[str, Sequence[Any]], cells: Sequence[Cells], attributes: Mapping[str, Any]
) -> xr.Dataset:
    """The Dataset of a study.

    Args:
        designs: Rows of the design dimension. coordinates: ids of models, workloads, scenarios and limits [s].
        cells: Evaluated deployments. attributes: Provenance; what is no string or number is stored as JSON.

    Returns: Dataset with the dimensions of ``DIMS`` and ``component``.
    """
    components = _components(designs)
    shape = (len(designs), *(len(coordinates[d]) for d in DIMS[1:]))
    arrays = {name: np.full(shape, np.nan) for name in (*SCALARS, *UNSERVED, *LAYOUT, *(f"slack_{f.name}" for f in fields(SlackParts)))}
    arrays["feasible"] = np.zeros(shape)
    arrays |= {name: np.full((*shape, len(components)), np.nan) for name in PARTS}
    arrays |= {f"{end}.{name}": np.full(shape, np.nan) for end in ("low", "high") for name in INTERVAL}
    arrays |= {name: np.full(shape, "", object) for name in TEXT}
    for c in cells:
        _fill(arrays, c, components)
    # a chip that exists is its own front: it is drawn beside the families, not as one of them
    groups = [d.family + ("/3-bit" if d.below_4_bit else "") if d.status == "hypothetical" else d.id for d in designs]
    arrays["on_front"] = on_front(arrays["usd_per_million_output_token"], groups)
    data = {name: ((*DIMS, "component") if name in PARTS else DIMS, values) for name, values in arrays.items()}
    coords = {"design": [d.id for d in designs], **{d: list(coordinates[d]) for d in DIMS[1:]}, "component": components}
    ds = xr.Dataset({**data, **_design_variables(designs, components)}, coords=coords)
    for name in ds.variables:
        ds[name].attrs = {**_attrs(str(name)), **ds[name].attrs}
    ds.attrs = {k: v if isinstance(v, (str, int, float)) else json.dumps(v, sort_keys=True) for k, v in attributes.items()}
    return ds


def of_stated_worth(ds: xr.Dataset, worth: Mapping[str, float]) -> xr.Dataset:
    """The result with the worth of a token that its user states for the format of the weights, and the cost of tokens weighed by it."""
    formats = ds["format_weights"]
    quality = xr.where(formats == "", np.nan, 1.0)
    for name, value in worth.items():
        quality = xr.where((formats == name) | formats.str.startswith(f"{name}/"), value, quality)
    found = {"quality": quality, "usd_per_million_adjusted_token": ds["usd_per_million_output_token"] / quality}
    return ds.assign({name: value.assign_attrs(_attrs(name)) for name, value in found.items()})


def save(ds: xr.Dataset, path: Path) -> Path:
    """Write a Dataset as compressed NetCDF; a failed write leaves no file and no older file harmed.

    Raises:
        DseError: the disk is full or the folder cannot be written.
    """
    encoding = {str(n): {"zlib": True, "complevel": 4} for n, v in ds.data_vars.items() if v.dtype.kind == "f"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            ds.to_netcdf(part, engine="h5netcdf", encoding=encoding)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DseError(f"{path}: result — cannot be written ({error}); free space or name another --out") from error
    return path


def load(path: Path | str) -> xr.Dataset:
    """Read a result. Raises InputError when the file is missing, is no result, or is damaged."""
    path = Path(path)
    if path.is_dir():
        path = path / "result.nc"
    if not path.exists():
        raise InputError(f"{path}: result — not found; give the result.nc of a run, or its folder")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            ds = opened.load()
    except Exception as error:
        raise InputError(f"{path}: result — cannot be read as NetCDF ({type(error).__name__}); run the study again") from error
    needed = ("row",) if ds.attrs.get("kind") == "claims" else DIMS
    missing = [d for d in needed if d not in ds.dims]
    if missing:
        raise InputError(f"{path}: result — lacks the dimensions {', '.join(missing)}; is it a result of `dse run`?")
    return ds


def sweep(deployment: Deployment, over: Mapping[str, Sequence[float]]) -> xr.Dataset:
    """Metrics of a deployment over a grid: one dimension for each path such as ``"layout.batch"`` or ``"chip.tdp_w"``.

    Raises:
        InputError: a path that is no field, or a field that is no number.
    """
    base = as_floats(deployment)
    names = list(over)
    for axis, (path, values) in enumerate(over.items()):
        shape = [1] * len(names)
        shape[axis] = len(values)
        base = _put(base, path, path, np.asarray(values, float).reshape(shape))
    m = evaluate(base)
    full = tuple(len(v) for v in over.values())
    data: dict[str, Any] = {}
    flat, _ = jax.tree_util.tree_flatten_with_path(m)
    for path_, leaf in flat:
        name = ".".join(getattr(k, "name", str(k)) for k in path_)
        if name.startswith(("layout", "format", "batch")):
            continue
        data[name] = (names, np.broadcast_to(np.asarray(leaf), full).copy())
    return xr.Dataset(data, coords={n: np.asarray(v, float) for n, v in over.items()})


def _put(record: Any, path: str, rest: str, value: Any) -> Any:
    head, _, tail = rest.partition(".")
    known = [f.name for f in fields(record)] if hasattr(record, "__dataclass_fields__") else []
    if head not in known:
        raise InputError(f"over: {path} — found no field '{head}', allowed {', '.join(known)}{closest(head, known)}")
    inner = getattr(record, head)
    if tail:
        return replace(record, **{head: _put(inner, path, tail, value)})
    if hasattr(inner, "__dataclass_fields__") or inner is None or isinstance(inner, (str, tuple)):
        raise InputError(f"over: {path} — found a record, allowed the name of one number in it")
    return replace(record, **{head: value})
