"""What would the designs of a result cost if some inputs were different? Many values of the inputs at once, layouts chosen anew.

A competitor is a family with its designs on the front, or a chip that exists; its options are the layouts that these designs take in
the result, each with a ladder of batches. The least cost under every limit is taken anew for every value of the inputs. A chip that
turns out too hot for its package is throttled to what may leave as heat; reticle and die edge, which a designer would meet by a slightly
different die, are not checked again, unless the die outgrows the reticle by half.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.catalog import Catalog
from dse.catalog.silicon import build_family
from dse.chips import FAMILIES
from dse.chips.common import NODES
from dse.equations import layout as cut
from dse.evaluate import as_floats, money, performance, total_cost, worst_slack
from dse.search.deck import MARGIN, single
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.kernel import F32_TOLERANCE
from dse.space import Space
from dse.types import Chip, FamilyConstants, Layout, PerKernel, Prices, Process, Slacks, named_format

if TYPE_CHECKING:
    import xarray as xr

EXISTING = "existing"
SAMPLES, OPTIONS, DESIGNS = 1024, 32, 8  # of one compiled call
RUNG = 2 ** (1 / 2)  # ratio of neighbouring batches
DOWN, UP = 3.0, 2.0  # how far the ladder goes below and above the batches of the result
OUTGROWN = 1 / 2  # of the reticle, by which a die may miss it
DEGREES = ("tp", "pp", "dp", "ep")
RARE = 3  # options that are best less often than that in some first samples, of thousands, are left out of the others
SPARE = 2  # larger numbers of pipeline stages that chips which store weights may take, where a sample's store turns out smaller


@dataclass(frozen=True)
class Competitor:
    """A family with designs, or a chip that exists, and what it may choose among."""

    name: str  # family, or id of the chip
    family: str
    space: Space | None  # None: a chip of the catalogue
    designs: tuple[str, ...]  # ids
    decisions: tuple[Mapping[str, Any], ...]  # by name
    who: np.ndarray  # (options,) position of the design
    rows: np.ndarray  # (options, 5): tp, pp, dp, ep, batch
    formats: tuple[str, ...]  # (options,): weights

    @property
    def kernels(self) -> set[str]:
        """Weight formats as kernels see them."""
        return {f.name for w in set(self.formats) for f in fields(PerKernel) if float(getattr(named_format(w).kernel, f.name)) > 0}


# --- from a result to competitors --------------------------------------------------------------------------------------------


def ladder(batches: Sequence[float], least: float = 1.0) -> list[float]:
    """Whole batches from below the least to above the largest, those given among them."""
    low, high = max(min(batches) / DOWN, least, 1.0), max(batches) * UP
    steps = np.round(low * RUNG ** np.arange(int(np.log(high / low) / np.log(RUNG)) + 2))
    return sorted({*steps.tolist(), *(float(b) for b in batches)})


def _options(cells: list[tuple[int, tuple[Any, ...], float]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    found: dict[tuple[int, tuple[Any, ...]], list[float]] = {}
    for design, layout, batch in cells:
        found.setdefault((design, layout), []).append(batch)
    who, rows, formats = [], [], []
    for (design, (*degrees, fmt)), batches in found.items():
        for batch in ladder(batches, degrees[2]):
            who.append(design)
            rows.append([*degrees, batch])
            formats.append(fmt)
    return np.array(who, int), np.array(rows, float), tuple(formats)


def _cells(ds: xr.Dataset, designs: Sequence[int]) -> list[tuple[int, tuple[Any, ...], float]]:
    """(position, layout, batch) of every cell of a case that some designs serve, over owners and limits."""
    at = ds.isel(design=list(designs)).transpose("design", "scenario", "tpot_limit", ...)
    columns = [at[n].values for n in (*DEGREES, "format_weights", "format_kv", "batch")]
    found = []
    for where in zip(*np.nonzero(at["feasible"].values > 0), strict=True):
        *degrees, weights, _, batch = (c[where] for c in columns)
        found.append((int(where[0]), (*(float(d) for d in degrees), str(weights)), float(batch)))
    return found


def _more_stages(ds: xr.Dataset, designs: Sequence[int], cells: list[Any], case: Case) -> list[Any]:
    """Cells, and the same cut into more pipeline stages for chips that were made to store their share of the weights to the last byte."""
    if "weight_store_capacity_byte" not in ds or not designs:
        return cells
    stores = ds["weight_store_capacity_byte"].values[list(designs)] > 0
    stages = np.unique(layout_table(case.model, Grid())[:, 1])
    more = [
        (design, (tp, float(further), *rest), batch)
        for design, (tp, pp, *rest), batch in cells
        if stores[design]
        for further in stages[stages > pp][:SPARE]
    ]
    return cells + more


def competitors_of(ds: xr.Dataset, case: Case, spaces: Mapping[str, Space], real: int = 3) -> list[Competitor]:
    """Families with the designs that are cheapest of theirs somewhere in a case, and the chips that exist which come first somewhere.

    Args:
        ds: Result of a study. case: One of its cases. spaces: Of the families. real: Chips that exist, at most.
    """
    here = ds.sel(model=case.model_id, workload=case.workload_id)
    cost = here["usd_per_million_output_token"].where(here["feasible"] > 0, np.inf).transpose("scenario", "tpot_limit", "design").values
    hypothetical = (ds["status"].values == "hypothetical") & (ds["below_4_bit"].values == 0)
    found = []
    for family, space in spaces.items():
        mine = hypothetical & (ds["family"].values == family)
        designs = _leaders(cost, mine)[:DESIGNS]
        if designs:
            decisions = tuple(decisions_of(ds, d, space) for d in designs)
            found.append(_competitor(family, family, space, ds, here, designs, decisions, case))
    existing = (ds["status"].values == "existing") & (ds["family"].values != "other")
    for d in _leaders(cost, existing)[:real]:
        identity = str(ds["design"].values[d])
        found.append(_competitor(identity, str(ds["family"].values[d]), None, ds, here, [d], ({},), case))
    return found


def _competitor(
    name: str, family: str, space: Space | None, ds: xr.Dataset, here: xr.Dataset, designs: list[int], decisions: Any, case: Case
) -> Competitor:
    who, rows, formats = _options(_more_stages(ds, designs, _cells(here, designs), case))
    return Competitor(name, family, space, tuple(str(ds["design"].values[d]) for d in designs), decisions, who, rows, formats)


def decisions_of(ds: xr.Dataset, design: int, space: Space) -> dict[str, Any]:
    """The decisions of a design of a result as a person writes them: names, whole numbers for counts."""
    found = {n: ds[n].values[design] for n in space.names if n in ds}
    return {n: str(x) if isinstance(x, str) else round(float(x)) if space[n].kind == "int" else float(x) for n, x in found.items()}


def _leaders(cost: np.ndarray, among: np.ndarray) -> list[int]:
    """Designs among a mask that are cheapest in some cell, those of most cells first."""
    if not among.any():
        return []
    masked = np.where(among, cost, np.inf)
    best = masked.argmin(axis=-1)[np.isfinite(masked.min(axis=-1))]
    counted = np.bincount(best, minlength=len(among))
    return [int(i) for i in np.argsort(-counted, kind="stable") if counted[i]]


# --- chips under other inputs -------------------------------------------------------------------------------------------------


def wide(tree: Any, samples: int, columns: int = 1) -> Any:
    """The same pytree with leaves ``(samples, columns)`` in double precision."""
    return jax.tree.map(lambda x: np.broadcast_to(_column(np.asarray(x, float)), (samples, columns)), tree)


def _column(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, 1) if x.ndim < 2 else x


@functools.cache
def _builder(family: str):
    return quickly(lambda values, process, technology, constants: FAMILIES[family].build(values, process, technology, constants).chip)


def throttled(chip: Chip) -> Chip:
    """A chip that may draw no more than its limits of heat and package allow; its other limits count only where they are missed by far."""
    share = jnp.minimum(1.0, 1.0 / (1.0 - jnp.minimum(jnp.minimum(chip.slack.heat, chip.slack.package), 0.0)))
    outgrown = jnp.minimum(chip.slack.reticle + OUTGROWN, 0.0)
    return replace(chip, tdp_w=chip.tdp_w * share, slack=Slacks(reticle=outgrown, beachfront=0.0, heat=0.0, package=0.0))


def values_of(c: Competitor, columns: int = DESIGNS) -> dict[str, np.ndarray]:
    """Design variables of a family's designs, arrays (1, columns); the last design fills up."""
    assert c.space is not None
    listed = [c.space.from_named(d) for d in c.decisions]
    padded = listed + listed[-1:] * (columns - len(listed))
    return {n: np.array([[d[n] for d in padded]]) for n in c.space.names}


def chips_of(c: Competitor, catalog: Catalog, samples: int) -> Chip:
    """Chips of a competitor under a catalogue whose values are columns (samples, 1): leaves (samples, DESIGNS), kernels (samples, 1)."""
    if c.space is None:
        chip = throttled(catalog.chips[c.name])
        return _spread(chip, samples)
    values = values_of(c)
    process = _processes(c, catalog, values["node"][0].astype(int), samples)
    constants = wide(_constants(c.family, catalog), samples)
    chip = throttled(_builder(c.family)(values, process, wide(catalog.technology, samples), constants))
    return _spread(chip, samples)


def _spread(chip: Chip, samples: int) -> Chip:
    """Leaves (samples, DESIGNS), those of the kernels (samples, 1)."""
    body: Any = replace(chip, kernels=None)  # type: ignore[arg-type]
    return replace(wide(body, samples, DESIGNS), kernels=_kernels(chip.kernels, samples))


def _kernels(kernels: Any, samples: int) -> Any:
    s = kernels.system
    plain = replace(kernels, system=replace(s, layer_s=0.0, layer_token_s=0.0))
    own = {"layer_s": wide(s.layer_s, samples, DESIGNS), "layer_token_s": wide(s.layer_token_s, samples, DESIGNS)}
    found = wide(plain, samples)
    return replace(found, system=replace(found.system, **own))


def _constants(family: str, catalog: Catalog) -> FamilyConstants:
    return as_floats(build_family(catalog.records["families"][family], kernels=catalog.constants[family]))


def _processes(c: Competitor, catalog: Catalog, nodes: np.ndarray, samples: int) -> Process:
    """The process of each design, leaves (samples, designs)."""
    used = {n: wide(catalog.processes[NODES[n]], samples) for n in dict.fromkeys(nodes.tolist())}
    return jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *[used[n] for n in nodes.tolist()])


# --- evaluation -----------------------------------------------------------------------------------------------------------------


@jax.jit
def _block(chips: Chip, who: Any, model: Any, workload: Any, layouts: Layout, prices: tuple[Prices, ...], ttft: Any):
    """Times per token and costs of every owner (inf where a limit is broken), arrays (samples, options)."""
    picked = jax.tree.map(lambda x: x if x.shape[1] == 1 else jnp.take(x, who, axis=1), chips)
    p = performance(picked, model, workload, layouts)
    ok = (worst_slack(p.slack) >= F32_TOLERANCE) & (p.ttft_s <= ttft)
    return p.tpot_s, tuple(jnp.where(ok, total_cost(money(picked, v, p)) / p.output_token_per_s * 1e6, jnp.inf) for v in prices)


@jax.jit
def _least(tpot: Any, costs: tuple[Any, ...], limits: Any):
    """Least cost of every owner under every limit: array (scenario, limit, samples)."""
    return jnp.stack([jnp.stack([jnp.min(jnp.where(tpot <= limit, c, jnp.inf), axis=1) for limit in limits]) for c in costs])


def _blocks(c: Competitor, mixture: bool, dtype: Any) -> Iterator[tuple[np.ndarray, Layout]]:
    """Options in blocks of one shape (the last one fills up)."""
    names = tuple(dict.fromkeys(c.formats))
    hot = jax.tree.map(lambda *xs: np.array(xs, dtype), *[named_format(f) for f in names])
    chosen = np.array([names.index(f) for f in c.formats])
    for start in range(0, len(c.who), OPTIONS):
        at = np.minimum(np.arange(start, start + OPTIONS), len(c.who) - 1)
        layout = to_layout(c.rows[at], None, mixture, axis=1, dtype=dtype)
        yield c.who[at], replace(layout, format=jax.tree.map(lambda x: x[chosen[at]][None, :], hot))  # noqa: B023


@dataclass(frozen=True)
class Question:
    """A case, the limits on the time per token, and the owners by name."""

    case: Case
    limits_s: tuple[float, ...]
    scenarios: tuple[str, ...]


def _ways(c: Competitor, question: Question, catalog: Catalog, samples: int) -> Iterator[tuple[Any, Any]]:
    """Times per token and costs of every owner of a competitor's options, in blocks: arrays (samples, OPTIONS)."""
    case = question.case
    chips, model, workload = jax.device_put((single(chips_of(c, catalog, samples)), single(cut.trimmed(case.model)), single(case.workload)))
    prices = tuple(single(wide(as_floats(catalog.prices[s]), samples)) for s in question.scenarios)
    for who, layouts in _blocks(c, is_mixture(case.model), np.float32):
        yield _block(chips, who, model, workload, layouts, prices, np.float32(case.ttft_limit_s * (1 + MARGIN)))


def _limits(question: Question) -> Any:
    return jnp.asarray(np.asarray(question.limits_s) * (1 + MARGIN), jnp.float32)


def in_blocks(rows: int) -> Iterator[np.ndarray]:
    """Positions of rows in blocks of SAMPLES; the last row fills up."""
    for start in range(0, rows, SAMPLES):
        yield np.minimum(np.arange(start, start + SAMPLES), rows - 1)


def leading(c: Competitor, question: Question, catalogs: Iterable[Catalog], samples: int) -> Competitor:
    """The same competitor with the options alone that are best RARE times or more, over catalogues of samples, owners and limits."""
    counted = np.zeros(len(c.who), int)
    for catalog in catalogs:
        blocks = list(_ways(c, question, catalog, samples))
        tpot = np.concatenate([np.asarray(t) for t, _ in blocks], axis=1)[:, : len(c.who)]
        for i in range(len(question.scenarios)):
            costs = np.concatenate([np.asarray(x[i]) for _, x in blocks], axis=1)[:, : len(c.who)]
            for limit in np.asarray(_limits(question)):
                met = np.where(tpot <= limit, costs, np.inf)
                best = met.argmin(axis=1)
                counted += np.bincount(best[np.isfinite(met[np.arange(samples), best])], minlength=len(counted))
    used = counted >= min(RARE, counted.max())  # all where nothing is feasible in these samples
    return replace(c, who=c.who[used], rows=c.rows[used], formats=tuple(f for f, u in zip(c.formats, used, strict=True) if u))


def costs_of(c: Competitor, question: Question, catalog: Catalog, samples: int) -> np.ndarray:
    """Least cost of a competitor, array (scenario, limit, samples), under a catalogue with values (samples, 1) [USD/Mtoken]; inf: none."""
    limits = _limits(question)
    best = np.full((len(question.scenarios), len(question.limits_s), samples), np.inf)
    for tpot, costs in _ways(c, question, catalog, samples):
        best = np.minimum(best, np.asarray(_least(tpot, costs, limits)))
    return best
