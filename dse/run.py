"""In what order is a study run? Read, search every shard, evaluate the winners exactly, save, report. ``run_study`` and ``sweep`` live here."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dse.analysis.elasticity import PARAMETERS, elasticities
from dse.catalog import Catalog, load_catalog
from dse.catalog.silicon import build_family, build_range
from dse.catalog.workloads import ttft_limit_s
from dse.chips import FAMILIES
from dse.chips.common import NODES
from dse.errors import InfeasibleError, InputError
from dse.evaluate import as_floats, evaluate, stack
from dse.results import Cells, Design, save, to_dataset
from dse.search import explore
from dse.search.designs import Questions, Shop, block_scorer, build_block, column, tables
from dse.search.layouts import Best, Case, Grid, native_formats, screen, to_layout, why_nothing_fits
from dse.search.optuna_study import open_ledger, open_storage
from dse.search.shards import Plan, points_of, run_shard
from dse.space import space_of
from dse.study import Study, check_study, read_study
from dse.types import Chip, Deployment, Layout, named_format

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[float, float, str], None]
FINE_STEP = 2 ** (1 / 8)  # ratio of neighbouring batches when the winners' batches are refined
FINE_REACH = 4  # steps to each side


@dataclass(frozen=True)
class Shard:
    """One family in one class of formats."""

    label: str
    family: str
    formats: tuple[str, ...]
    below_4_bit: bool


@dataclass(frozen=True)
class Winner:
    """A chip that goes into the result, with the formats it may use."""

    design: Design
    chip: Chip
    formats: tuple[str, ...]


# --- setting up --------------------------------------------------------------------------------------------------------


def is_narrow(fmt: str) -> bool:
    """Whether a weight format is below 4 bit: drawn apart, since it is not the same product."""
    return float(named_format(fmt).weight_byte) < 0.5


def shards_of(study: Study, catalog: Catalog) -> list[Shard]:
    """The shards of a study: each family, and once more for formats below 4 bit where the family takes them."""
    found = []
    for family in study.families:
        usable = [f for f in study.layouts.formats if f in catalog.records["families"][family].meta["formats"]]
        for narrow in (False, True):
            formats = tuple(f for f in usable if is_narrow(f) == narrow)
            if formats:
                found.append(Shard(family + ("_below_4_bit" if narrow else ""), family, formats, narrow))
    return found


def grid_of(study: Study, formats: Sequence[str]) -> Grid:
    """The layouts that a study tries."""
    t = study.layouts
    return Grid(tp=t.tp, dp=t.dp, pp=t.pp, ep=t.ep, batches=t.batch, formats=tuple(formats), max_chips=study.limits.max_chips)


def questions_of(study: Study, catalog: Catalog) -> Questions:
    """Every model with every workload, put to every owner."""
    prices = tuple(as_floats(catalog.prices[s]) for s in study.scenarios)
    cases = []
    for model in study.models:
        for workload in study.workloads:
            own = ttft_limit_s(catalog.records["workloads"][workload])
            limit = study.limits.ttft.get(workload, own if own is not None else np.inf)
            cases.append(Case(model, workload, as_floats(catalog.models[model]), as_floats(catalog.workloads[workload]), limit, prices))
    order = [(c.model_id, c.workload_id) for c in cases]
    return Questions(
        cases=tuple(cases),
        limits_s=tuple(study.limits.tpot),
        headline_case=order.index((study.headline.model, study.headline.workload)),
        headline_scenario=study.scenarios.index(study.headline.scenario),
    )


def shop_of(family: str, overrides: Mapping[str, Any], catalog: Catalog) -> Shop:
    """What a family's chips are built with: its space, processes, technology and constants."""
    record = catalog.records["families"][family]
    space = space_of(FAMILIES[family], build_range(record), overrides)
    nodes = [n if n in catalog.processes else space["node"].names[0] for n in NODES]
    constants = as_floats(build_family(record, kernels=catalog.constants[family]))
    processes = tuple(as_floats(catalog.processes[n]) for n in nodes)
    return Shop(family, space, processes, as_floats(catalog.technology), constants)


# --- searching ---------------------------------------------------------------------------------------------------------


def _search_shard(
    shard: Shard, study: Study, catalog: Catalog, chips: int, seed: int, storage: str | Path, tick: Callable[[int, int], None]
) -> tuple[explore.Archive, dict[str, int]]:
    shop = shop_of(shard.family, study.families[shard.family], catalog)
    questions = questions_of(study, catalog)
    s = study.search
    plan = Plan(shard.label, shop.space, questions.cells, chips, s.sampler, s.explore, s.asked, s.bred, seed)
    identity = {"study_sha256": study.sha256, "catalog_sha256": catalog.sha256, "seed": seed, "chips": chips}
    ledger = open_ledger(open_storage(storage), f"{study.name}/{shard.label}", shop.space, identity)
    scorer = block_scorer(shop, questions, grid_of(study, shard.formats), plan.block)
    archive = run_shard(plan, ledger, scorer, tick)
    counts = {k: int(ledger.study.user_attrs.get(k, 0)) for k in ("chips_screened", "evaluations")}
    return archive, counts


def _worker(job: tuple[Shard, str, str | None, int, int, str, bool]) -> tuple[str, explore.Archive, dict[str, int]]:
    """A shard in a process of its own; everything but the ledger is made anew there."""
    shard, study_path, overlay, chips, seed, storage, is_file = job
    catalog = load_catalog(overlay)
    where = Path(storage) if is_file else storage
    archive, counts = _search_shard(shard, read_study(study_path), catalog, chips, seed, where, lambda *_: None)
    return shard.label, archive, counts


def _search(
    study: Study,
    shards: Sequence[Shard],
    catalog: Catalog,
    overlay: str | None,
    budget: int,
    seed: int,
    storage: str | Path,
    workers: int,
    progress: Progress,
    deadline: float | None,
) -> tuple[dict[str, explore.Archive], dict[str, int]]:
    """Archives of all shards, and what was counted."""
    share = max(budget // len(shards), 1)
    found: dict[str, explore.Archive] = {}
    totals = {"chips_screened": 0, "evaluations": 0, "cut_by_time": 0}
    if workers > 1:
        jobs = [(s, str(study.path), overlay, share, seed, str(storage), isinstance(storage, Path)) for s in shards]
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for n, done in enumerate(as_completed([pool.submit(_worker, j) for j in jobs]), 1):
                label, archive, counts = done.result()
                found[label] = archive
                totals = {k: totals[k] + counts.get(k, 0) for k in totals}
                progress(n * share, len(shards) * share, label)
        return found, totals
    screened = 0
    for shard in shards:

        def tick(chips: int, evaluations: int, label: str = shard.label) -> None:
            nonlocal screened
            screened += chips
            progress(screened, len(shards) * share, label)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError

        try:
            found[shard.label], counts = _search_shard(shard, study, catalog, share, seed, storage, tick)
            totals = {k: totals[k] + counts.get(k, 0) for k in totals}
        except TimeoutError:
            totals["cut_by_time"] = 1
            break
    return found, totals


# --- the winners ---------------------------------------------------------------------------------------------------------


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: float(np.ravel(x)[i if np.size(x) > 1 else 0]), tree)


BODY = {
    "tdp_w": lambda c: c.tdp_w,
    "memory_capacity_byte": lambda c: c.memory.capacity_byte,
    "memory_bandwidth_byte_per_s": lambda c: 1.0 / c.memory.s_per_byte if c.memory.s_per_byte > 0 else np.nan,
    "sram_capacity_byte": lambda c: c.sram.capacity_byte,
    "weight_store_capacity_byte": lambda c: c.weight_store.capacity_byte,
    "peak_bf16_flop_per_s": lambda c: c.peak_flop_per_s.bf16,
    "peak_fp8_flop_per_s": lambda c: c.peak_flop_per_s.fp8,
    "unit_cost_usd_total": lambda c: c.unit_cost_usd,
}


def _body(chip: Chip) -> dict[str, float]:
    return {name: float(read(chip)) for name, read in BODY.items()}


def _winners_of(shard: Shard, archive: explore.Archive, study: Study, catalog: Catalog) -> list[Winner]:
    """The cheapest chip of every cell, built once more in double precision."""
    keep = explore.leaders(archive.costs, keep=1)
    if not len(keep):
        return []
    shop = shop_of(shard.family, study.families[shard.family], catalog)
    values = shop.space.decode(archive.points[keep])
    values, _ = points_of(shop.space, [shop.space.named(values, i) for i in range(len(keep))])
    built = build_block(shop, values)
    ids = shop.space.ids(values)
    found = []
    for i, identity in enumerate(ids):
        one = _row(built, i)
        chip = one.chip
        label = catalog.records["families"][shard.family].name
        suffix = "-3bit" if shard.below_4_bit else ""
        design = Design(
            id=identity + suffix,
            family=shard.family,
            chip=f"{label} {identity[:6]}{suffix}",
            status="hypothetical",
            below_4_bit=shard.below_4_bit,
            decisions=shop.space.named(values, i),
            area_mm2=one.area_mm2,
            unit_cost_usd=one.cost_usd,
            body=_body(chip),
        )
        found.append(Winner(design, chip, shard.formats))
    return found


def _real(study: Study, catalog: Catalog, added: Sequence[str]) -> list[Winner]:
    """Chips of the catalogue that are compared with the hypothetical ones."""
    found = []
    for identity in dict.fromkeys([*study.real_chips, *added]):
        record, chip = catalog.records["chips"][identity], as_floats(catalog.chips[identity])
        narrow = [f for f in study.layouts.formats if is_narrow(f)]
        stores_weights = float(chip.weight_store.capacity_byte) > 0
        formats = native_formats(chip, [f for f in study.layouts.formats if f not in narrow or stores_weights])
        integer_only = [f for f in formats if f.startswith("int") and not stores_weights and f != "int8"]
        usable = tuple(f for f in formats if f not in integer_only)
        family = str(record.meta.get("family", "other"))
        decisions = {"node": str(record.meta["node"])} if "node" in record.meta else {}
        status = str(record.meta.get("status", "existing"))
        design = Design(identity, family, record.name, status, False, decisions, body=_body(chip))
        found.append(Winner(design, chip, usable))
    return found


def _pad_chips(chips: Sequence[Chip], n: int) -> Chip:
    return stack([*chips, *[chips[-1]] * (n - len(chips))], axis=0)


def _refined(best: Best, table: np.ndarray) -> np.ndarray:
    """Layouts of the winners with neighbouring batches, as a table of its own."""
    rows = table[np.unique(best.layout[best.layout >= 0])]
    factors = FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)
    grown = rows[:, None, :].repeat(len(factors), axis=1)
    grown[..., 4] = np.maximum(np.round(grown[..., 4] * factors), grown[..., 2])
    return np.unique(grown.reshape(-1, 5), axis=0)


def _cells(
    case: Case,
    position: tuple[int, int],
    winners: Sequence[Winner],
    formats: tuple[str, ...],
    study: Study,
    limits: Sequence[float],
    size: int,
):
    """Best layouts of winners that share their formats, evaluated exactly; one ``Cells`` an owner."""
    grid = grid_of(study, formats)
    table = tables([case], grid)[case.model_id]
    chips = _pad_chips([w.chip for w in winners], size)
    coarse, _ = screen(chips, case, grid, table, limits)
    if not (coarse.layout >= 0).any():
        return
    fine = _refined(coarse, table)
    best, _ = screen(chips, case, grid, fine, limits)
    leaves = [column(w.chip, 1) for w in winners]
    hot = [jax.tree.map(np.asarray, named_format(f)) for f in formats]
    for s, prices in enumerate(case.prices):
        limit, who = np.nonzero(best.layout[s, :, : len(winners)] >= 0)
        if not len(who):
            continue
        picks, chosen = best.layout[s, limit, who], best.format[s, limit, who]
        n = -(-len(who) // CHUNK) * CHUNK
        full = np.concatenate([np.arange(len(who)), np.zeros(n - len(who), int)])
        chip = jax.tree.map(lambda *xs: np.array([float(np.ravel(x)[0]) for x in xs])[who][full], *leaves)  # noqa: B023
        fmt = jax.tree.map(lambda *xs: np.array(xs, float)[chosen][full], *hot)  # noqa: B023
        layout = replace(to_layout(fine[picks][full], None), format=fmt)
        m = evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=prices))
        m = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (n,))[: len(who)], m)  # noqa: B023
        slow = np.asarray(m.tpot_s) > np.asarray(limits)[limit] * (1 + 1e-9)
        late = np.asarray(m.ttft_s) > case.ttft_limit_s * (1 + 1e-9)
        yield Cells(
            index=(who, np.full_like(who, position[0]), np.full_like(who, position[1]), np.full_like(who, s), limit),
            metrics=m,
            format_weights=np.array(formats, object)[chosen],
            format_kv=np.array(["fp8" if x < 2 else "bf16" for x in np.asarray(layout.format.kv_byte)[: len(who)]], object),  # type: ignore[union-attr]
            valid=np.asarray(m.feasible) & ~slow & ~late,
        )


CHUNK = 256  # deployments in one exact evaluation: one compiled shape for all


def _all_cells(winners: Sequence[Winner], study: Study, questions: Questions, size: int, progress: Progress) -> list[Cells]:
    """Exact evaluations of all winners in all cases, by class of formats."""
    found: list[Cells] = []
    classes = list(dict.fromkeys(w.formats for w in winners))
    for k, formats in enumerate(classes):
        rows = np.array([i for i, w in enumerate(winners) if w.formats == formats])
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            for case in questions.cases:
                at = study.models.index(case.model_id), study.workloads.index(case.workload_id)
                chosen = [winners[i] for i in part]
                for cells in _cells(case, at, chosen, formats, study, questions.limits_s, size):
                    found.append(replace(cells, index=(part[cells.index[0]], *cells.index[1:])))
        progress(k + 1, len(classes), "winners")
    return found


# --- provenance ------------------------------------------------------------------------------------------------------------


def _git() -> dict[str, str]:
    """Commit of the checkout that holds the package, if there is one."""
    try:
        here = Path(__file__).resolve().parent
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit, "git_dirty": "yes" if dirty else "no"}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from dse import __version__

    packages = {f"{p}_version": version(p) for p in ("jax", "numpy", "optuna", "xarray")}
    return {"dse_version": __version__, **packages, "python": platform.python_version(), "platform": platform.platform()}


def _assumptions(study: Study, catalog: Catalog, families: Iterable[str]) -> list[dict[str, Any]]:
    """Every estimate, fit and assumption that the result stands on, with interval and source."""
    from dse.catalog.prices import price_values

    found = []
    listed = [(f"prices {s}", price_values(catalog.records["prices"][s], catalog)) for s in study.scenarios]
    listed += [(f"family {f}", catalog.records["families"][f].values) for f in families]
    listed += [(f"technology {k}", r.values) for k, r in catalog.records["technology"].items()]
    for where, values in listed:
        for name, q in values.items():
            if q.kind in ("estimate", "fit", "assumption", "claim") and not name.startswith("range."):
                found.append(
                    {"name": f"{where}: {name}", "value": q.value, "unit": q.unit, "low": q.low, "high": q.high, "kind": q.kind,
                     "source": q.source, "note": q.note or ""}
                )  # fmt: skip
    return found


def _attributes(
    study: Study, catalog: Catalog, seed: int, budget: int, counts: Mapping[str, int], wall: float, shards: Sequence[Shard]
) -> dict[str, Any]:
    h = study.headline
    used = _assumptions(study, catalog, dict.fromkeys(s.family for s in shards))
    keys = {a["source"] for a in used} | {q.source for c in study.real_chips for q in catalog.records["chips"][c].values.values()}
    return {
        "title": study.title,
        "question": study.question,
        "study": study.name,
        "study_toml": study.text,
        "study_sha256": study.sha256,
        "catalog_sha256": catalog.sha256,
        "headline": {"model": h.model, "workload": h.workload, "scenario": h.scenario, "tpot_limit": h.tpot},
        "ttft_limit_s": {c.workload_id: c.ttft_limit_s for c in questions_of(study, catalog).cases if np.isfinite(c.ttft_limit_s)},
        "seed": seed,
        "budget": budget,
        "counts": dict(counts),
        "wall_time_s": round(wall, 3),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "assumptions": used,
        "bibliography": {k: catalog.sources[k] for k in sorted(keys) if k in catalog.sources},
        **_versions(),
        **_git(),
    }


# --- elasticities ------------------------------------------------------------------------------------------------------------


def _elasticities(ds: xr.Dataset, winners: Sequence[Winner], study: Study, questions: Questions) -> xr.Dataset:
    """Elasticities of cost at every family's winner at the headline limit (nan where it has none)."""
    import xarray as xr

    families = list(dict.fromkeys(w.design.family for w in winners if w.design.status == "hypothetical"))
    shape = (len(families), len(study.models), len(study.workloads), len(study.scenarios))
    values, who = np.full((*shape, len(PARAMETERS)), np.nan), np.full(shape, "", object)
    cost = ds["usd_per_million_output_token"].sel(tpot_limit=study.headline.tpot).values
    for c in questions.cases:
        m, w = study.models.index(c.model_id), study.workloads.index(c.workload_id)
        jobs, places = [], []
        for f, family in enumerate(families):
            rows = [
                i
                for i, x in enumerate(winners)
                if x.design.family == family and x.design.status == "hypothetical" and not x.design.below_4_bit
            ]
            for s in range(len(study.scenarios)):
                column_ = cost[rows, m, w, s]
                if np.isfinite(column_).any():
                    i = rows[int(np.nanargmin(column_))]
                    jobs.append(
                        Deployment(winners[i].chip, c.model, c.workload, _layout_of(ds, i, m, w, s, study), c.prices[s])
                        if False
                        else Deployment(
                            chip=winners[i].chip,
                            model=c.model,
                            workload=c.workload,
                            layout=_layout_of(ds, i, m, w, s, study),
                            prices=c.prices[s],
                        )
                    )
                    places.append((f, m, w, s))
                    who[f, m, w, s] = winners[i].design.id
        for place, row in zip(places, elasticities(jobs), strict=True):
            values[place] = row
    dims = ("family", "model", "workload", "scenario")
    ds = ds.assign_coords(parameter=list(PARAMETERS))
    ds["elasticity"] = (
        ("elasticity_family", *dims[1:], "parameter"), values,
        {"long_name": "elasticity of the cost per output token at the family's winner at the headline limit", "units": "1", "better": "none"},
    )  # fmt: skip
    ds["elasticity_design"] = (("elasticity_family", *dims[1:]), who)
    return ds.assign_coords(elasticity_family=families) if not isinstance(ds, xr.DataArray) else ds


def _layout_of(ds: xr.Dataset, i: int, m: int, w: int, s: int, study: Study) -> Layout:
    at = ds.isel(design=i, model=m, workload=w, scenario=s).sel(tpot_limit=study.headline.tpot)
    degrees = {d: float(at[d]) for d in ("tp", "pp", "cp", "dp", "ep", "batch")}
    return Layout(**degrees, format=str(at["format_weights"].values))


# --- the study ---------------------------------------------------------------------------------------------------------------


def _nothing(questions: Questions, winners: Sequence[Winner], study: Study) -> str:
    """Why a study has no feasible design at all, from the first chips that were tried."""
    case = questions.cases[questions.headline_case]
    loosest = max(questions.limits_s)
    lines = []
    for w in winners[:8]:
        grid = grid_of(study, w.formats)
        lines.append(f"{w.design.chip}: {why_nothing_fits(w.chip, case, grid, tables([case], grid)[case.model_id], loosest)}")
    return "no design meets the limits of the study\n" + "\n".join(lines or ["no chip was screened: raise the budget"])


def _default_winners(study: Study, catalog: Catalog, shards: Sequence[Shard]) -> list[Winner]:
    """The default design of every shard, to say why nothing fits."""
    found = []
    for shard in shards:
        shop = shop_of(shard.family, study.families[shard.family], catalog)
        values, _ = points_of(shop.space, [shop.space.named(shop.space.defaults())])
        one = _row(build_block(shop, values), 0)
        found.append(Winner(Design(shard.label, shard.family, f"default {shard.family}", "hypothetical"), one.chip, shard.formats))
    return found


def prepare_folder(out: Path, resume: bool, force: bool) -> None:
    """Check the output folder before any work: an existing result is continued or replaced only when asked for.

    Raises:
        InputError: there is a result or a journal, and neither ``resume`` nor ``force`` was given.
    """
    journal, result = out / "study.journal", out / "result.nc"
    if (journal.exists() or result.exists()) and not (resume or force):
        raise InputError(
            f"{out}: holds a result or an unfinished run; --resume continues it, --force starts again, --out names another folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: out — cannot be made ({error}); name another --out") from error
    if force and not resume:
        for path in (journal, result):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / "figures", ignore_errors=True)


def run_study(
    study: str | Path | Study,
    budget: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    storage: str | None = None,
    workers: int = 1,
    add_chips: Sequence[str] = (),
    catalog: str | Path | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run a study and return its Dataset; with ``out``, write there what ``dse run`` writes.

    Args:
        study: Path, name of a shipped study, or a ``Study``. budget: Chips to evaluate over the whole study (None: the study's).
        seed: None: the study's. out: Folder; None keeps everything in memory. resume, force: For a folder that holds a run already.
        storage: Optuna storage URL instead of the journal file in ``out``. workers: Processes. add_chips: Further chips of the catalogue.
        catalog: Overlay folder. max_seconds: Cut the search after this time (written into the result).
        progress: Called with done, total and a word.

    Raises:
        InputError: something in study, catalogue or arguments is wrong. InfeasibleError: no design meets the limits.
    """
    start = time.monotonic()
    report = progress or (lambda *_: None)
    book = load_catalog(catalog)
    plan = study if isinstance(study, Study) else read_study(study)
    added = [book.resolve("chips", name) for name in add_chips]
    problems = check_study(plan, book)
    if problems:
        raise InputError(problems)
    budget, seed = plan.budget if budget is None else budget, plan.seed if seed is None else seed
    folder = Path(out) if out is not None else None
    if folder is not None:
        prepare_folder(folder, resume, force)
    where: str | Path = storage or (folder / "study.journal" if folder is not None else "")
    shards, questions = shards_of(plan, book), questions_of(plan, book)
    limit = max_seconds if max_seconds is not None else plan.max_seconds
    deadline = None if limit is None else start + limit
    if where == "":
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            archives, counts = _search(
                plan, shards, book, _text(catalog), budget, seed, Path(scratch) / "study.journal", workers, report, deadline
            )
    else:
        archives, counts = _search(plan, shards, book, _text(catalog), budget, seed, where, workers, report, deadline)
    winners = [w for s in shards if s.label in archives for w in _winners_of(s, archives[s.label], plan, book)]
    winners += _real(plan, book, added)
    size = plan.search.asked + plan.search.bred
    cells = _all_cells(winners, plan, questions, size, report) if winners else []
    if not any(c.valid.any() for c in cells):
        raise InfeasibleError(_nothing(questions, _default_winners(plan, book, shards), plan))
    coordinates = {"model": plan.models, "workload": plan.workloads, "scenario": plan.scenarios, "tpot_limit": questions.limits_s}
    attributes = _attributes(plan, book, seed, budget, counts, time.monotonic() - start, shards)
    ds = to_dataset([w.design for w in winners], coordinates, cells, attributes)
    ds = _elasticities(ds, winners, plan, questions)
    report(1, 1, "report")
    if folder is not None:
        from dse.report import write_report

        save(ds, folder / "result.nc")
        write_report(ds, folder)
    return ds


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


# --- sweeps ----------------------------------------------------------------------------------------------------------------


def sweep(deployment: Deployment, over: Mapping[str, Sequence[float]]) -> xr.Dataset:
    """Metrics of a deployment over a grid: one dimension for each path such as ``"layout.batch"`` or ``"chip.tdp_w"``.

    Raises:
        InputError: a path that is no field, or a field that is no number.
    """
    import xarray as xr

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
        from dse.errors import closest

        raise InputError(f"over: {path} — found no field '{head}', allowed {', '.join(known)}{closest(head, known)}")
    inner = getattr(record, head)
    if tail:
        return replace(record, **{head: _put(inner, path, tail, value)})
    if hasattr(inner, "__dataclass_fields__") or inner is None or isinstance(inner, (str, tuple)):
        raise InputError(f"over: {path} — found a record, allowed the name of one number in it")
    return replace(record, **{head: value})
