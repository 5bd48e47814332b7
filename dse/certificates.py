"""What is proved about a study's answer? Certificates of families: written, read, checked again, and put into attributes of a Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse import glossary
from dse.catalog import Catalog
from dse.errors import InputError
from dse.questions import grid_of, questions_of, row_of, shards_of, shop_of
from dse.search.bounds import Problem
from dse.search.certify import TIGHT, Incumbent, check, exact, prove
from dse.search.designs import build_block
from dse.search.finalists import Finalist, fine_batches, place
from dse.search.finish import polish
from dse.search.grid import Grid
from dse.search.refine import Question, refine
from dse.search.shadow import EXTRAS
from dse.study import Study, read_study
from dse.types import Layout

if TYPE_CHECKING:
    import xarray as xr

LAYOUT = ("tp", "pp", "dp", "ep", "batch")
BRED = 300  # rounds of the search that a proof begins with
ENOUGH = 0.01  # relative gap of a certificate that is not improved any more
TARGET = 0.009  # relative gap at which a proof stops
BOXES = 30_000_000  # that a proof cuts at most: a gigabyte, most of it for the boxes that are still open
AGAIN = 200_000  # boxes that a check may need beyond twice those of the proof
STATIONARY = 0.02  # residual of optimality up to which shadow prices are believed, of cost over the range of a variable
MARKS = (1.0, 3.0, 10.0, 30.0, 60.0, 600.0)  # seconds at which the table of gaps looks
MOMENTS = 24  # of its history that a certificate keeps
COSTS_AGREE = 1e-9  # relative: the optimum evaluated again
RELAXATIONS = (
    "the chip of a box is bounded by one that is best in every field of the enclosure of the family's build",
    "time per token and time to first token are means; the closed loop of serving is bounded by its least value over decoding times",
    "limits are judged at the smallest batch of a box, cost at the largest one with every byte where it lies at the smallest",
    "weights of 4 bit or more; every batch that the refinement of winners can reach",
)
HARDWIRED = "hardwired layers: the larger of the operators' time and of the layers' fixed time with what no computing hides"


@dataclass(frozen=True)
class Certificate:
    """The cheapest design of a family in one case under one limit, and the cost that none in the grid can go below [USD/Mtoken]."""

    study: str
    question_sha256: str  # of ``Study.certified_question``: effort of the search and words of the study file are no part of it
    catalog_sha256: str
    family: str
    model: str
    workload: str
    scenario: str
    tpot_limit_s: float
    ttft_limit_s: float | None
    optimum: float | None
    bound: float | None  # None: nothing in the grid meets the limits
    gap: float | None
    boxes: int
    seconds: float
    grid: dict[str, Any]
    variables: list[dict[str, Any]]
    design: dict[str, Any] | None
    layout: dict[str, Any] | None
    relaxations: list[str]
    history: list[list[float | None]]  # seconds, optimum, bound
    roots: int
    trees: str
    shadow_prices: dict[str, float] | None = None  # what one SI unit more of a limit or a resource saves [USD/Mtoken]


def refined(grid: Grid) -> Grid:
    """The grid of the search with every batch that the refinement of its winners can reach."""
    thin = grid.thinned()
    return replace(thin, batches=fine_batches(thin))


def problem_of(study: Study, catalog: Catalog, family: str, limit_s: float) -> Problem:
    """The headline case of a study for one family and one limit.

    Raises:
        InputError: the study has no such family, or fixes something in all layouts that the bound does not know.
    """
    shards = [s for s in shards_of(study, catalog) if s.family == family and not s.below_4_bit]
    if not shards:
        raise InputError(f"family — found '{family}', allowed {', '.join(study.families)}")
    if study.layouts.fixed:
        raise InputError(f"{study.label}: layouts.{study.layouts.fixed[0]} — found beside a certificate, whose bound is not argued for it")
    questions, shop = questions_of(study, catalog), shop_of(family, study.families[family], catalog)
    grid = refined(grid_of(study, shards[0].formats))
    return Problem(shop, questions.cases[questions.headline_case], questions.headline_scenario, limit_s, grid)


def _incumbent(problem: Problem, design: Mapping[str, Any], layout: Mapping[str, Any]) -> Incumbent:
    """A design written with names, in a layout, evaluated exactly."""
    space = problem.shop.space
    values = space.from_named(design)
    point = np.array([values[name] for name in space.names])
    row = np.array([float(layout[name]) for name in LAYOUT])
    form = tuple(problem.grid.formats).index(layout["format"])
    cost = exact(problem, point[None], row[None], np.array([form]))
    return Incumbent(float(cost[0]), point, row, form)


def bred_starts(
    problem: Problem, study: Study, limits_s: Sequence[float], rounds: int = BRED
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Designs with their layouts that a short search from nothing finds for a problem under some limits: where proofs begin."""
    case = replace(problem.case, prices=(problem.case.prices[problem.scenario],))
    grid, shop = grid_of(study, problem.grid.formats), problem.shop
    question = Question(((case, 1.0),), tuple(limits_s))
    points = refine(shop, question, grid, np.empty((0, shop.space.dimension)), rounds, np.random.default_rng(study.seed)).points
    if not len(points):
        return []
    values = shop.space.decode(points)
    chips = build_block(shop, values).chip
    finalists = [Finalist(row_of(chips, i), tuple(grid.formats)) for i in range(len(points))]
    found = []
    for p in place(case, finalists, grid, limits_s, octave=True):
        for k, i in enumerate(p.who.tolist()):
            degrees = {n: _degree(p.metrics.layout, n, k) for n in LAYOUT}
            found.append((dict(shop.space.named(values, i)), degrees | {"format": str(p.format_weights[k])}))
    return found


def _degree(layout: Layout, name: str, k: int) -> float:
    found = np.ravel(1.0 if getattr(layout, name) is None else getattr(layout, name))
    return float(found[k if len(found) > 1 else 0])


def certify(
    study: Study,
    catalog: Catalog,
    family: str,
    limit_s: float | None = None,
    seconds: float = 60.0,
    boxes: int = BOXES,
    incumbent: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Certificate:
    """Branch and bound on the headline case of a study, for a time (compilation comes on top).

    Args:
        study, catalog: What is asked, with what. family: One of the study. limit_s: On the mean time per token (None: the headline's).
        seconds: To spend. boxes: To cut at most.
        incumbent: A design (by names) and its layout (tp, pp, dp, ep, batch, format), where one is known.

    Raises:
        InputError: unknown family. NotImplementedError: the bound is not argued for its constants.
    """
    problem = problem_of(study, catalog, family, study.headline.tpot if limit_s is None else limit_s)
    return certificate_of(problem, study, catalog, seconds, boxes, [] if incumbent is None else [incumbent])


def certificate_of(
    problem: Problem,
    study: Study,
    catalog: Catalog,
    seconds: float,
    boxes: int = BOXES,
    starts: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
    finish: bool = True,
) -> Certificate:
    """As ``certify``, for a problem that is already put together: limits of one family share what is compiled."""
    family = problem.shop.family
    known = [x for x in (_incumbent(problem, *s) for s in starts) if np.isfinite(x.cost)]
    proof = prove(problem, seconds, min(known, key=lambda x: x.cost, default=None), target=TARGET, boxes=boxes)
    best, head, grid = proof.optimum, study.headline, problem.grid
    best, worth = _finished(problem, study, best) if finish else (best, None)
    found = best.point is not None and best.row is not None
    design = problem.shop.space.named(dict(zip(problem.shop.space.names, best.point, strict=True))) if best.point is not None else None
    layout = None
    if best.row is not None:
        layout = dict(zip(LAYOUT, best.row.tolist(), strict=True)) | {"format": grid.formats[best.format]}
    hardwired = [HARDWIRED] if float(problem.shop.constants.layer_pipelined) > 0 else []
    return Certificate(
        study=study.name,
        question_sha256=study.question_sha256(family, problem.limit_s),
        catalog_sha256=catalog.sha256,
        family=family,
        model=head.model,
        workload=head.workload,
        scenario=head.scenario,
        tpot_limit_s=problem.limit_s,
        ttft_limit_s=_finite(problem.case.ttft_limit_s),
        optimum=best.cost if found else None,
        bound=_finite(proof.bound),
        gap=replace(proof, optimum=best).gap if found else None,
        boxes=proof.boxes,
        seconds=round(proof.seconds, 2),
        grid=asdict(grid),
        variables=[{"name": v.name, "kind": v.kind, "low": v.low, "high": v.high, "names": v.names} for v in problem.shop.space.variables],
        design=design,
        layout=layout,
        relaxations=[*RELAXATIONS, *hardwired],
        history=[[round(t, 2), _finite(u), _finite(b)] for t, u, b in _moments(proof.history)],
        roots=proof.roots,
        trees=proof.trees,
        shadow_prices=worth,
    )


def _finished(problem: Problem, study: Study, best: Incumbent) -> tuple[Incumbent, dict[str, float] | None]:
    """The optimum polished in its layout, and what its limits are worth."""
    if best.point is None or best.row is None:
        return best, None
    names, grid = problem.shop.space.names, problem.grid
    design = problem.shop.space.named(dict(zip(names, best.point, strict=True)))
    layout = dict(zip(LAYOUT, best.row.tolist(), strict=True)) | {"format": grid.formats[best.format]}
    prices = problem.case.prices[problem.scenario]
    layouts = grid_of(study, grid.formats)
    found = polish(problem.shop, design, problem.case, prices, problem.limit_s, layouts, layout=layout, rounds=1, each=0)
    if found is None or found.residual > STATIONARY:
        return best, None
    again = _incumbent(problem, found.decisions, found.layout)
    return again if again.cost < best.cost else best, {k: v for k, v in found.multipliers.items() if v > 0.0}


def _moments(history: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    return [history[i] for i in sorted({round(x) for x in np.linspace(0, len(history) - 1, MOMENTS)})]


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def write(certificate: Certificate, path: str | Path) -> Path:
    """Write a certificate as JSON."""
    Path(path).write_text(json.dumps(asdict(certificate)) + "\n")
    return Path(path)


def read(path: str | Path) -> Certificate:
    """Read a certificate.

    Raises:
        InputError: not a certificate.
    """
    try:
        found = json.loads(Path(path).read_text())
        if "study_sha256" not in found:
            return Certificate(**found)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: certificate — cannot be read ({error})") from error
    what = "found the digest of a whole study file, as certificates had it before, allowed question_sha256: prove it again (dse certify)"
    raise InputError(f"{path}: study_sha256 — {what}")


def is_done(c: Certificate) -> bool:
    """Whether a certificate need not be improved: its gap is small, or it proves that nothing is feasible."""
    return c.bound is None if c.gap is None else c.gap <= ENOUGH


def still_good(path: str | Path, study: Study, catalog: Catalog) -> Certificate | None:
    """A certificate that was issued for exactly this question of a study and this catalogue, or None."""
    try:
        found = read(path)
    except InputError:
        return None
    return None if _outdated(found, study, catalog) else found


def _outdated(c: Certificate, study: Study, catalog: Catalog) -> list[str]:
    """What the study or the catalogue now says otherwise than when a certificate was issued."""
    found = []
    if c.catalog_sha256 != catalog.sha256:
        found.append(f"catalog_sha256 — found {c.catalog_sha256[:12]}, but it is {catalog.sha256[:12]} now")
    if c.question_sha256 != study.question_sha256(c.family, c.tpot_limit_s):
        head = study.headline
        now = {"model": head.model, "workload": head.workload, "scenario": head.scenario}
        changed = [f"{k} was {getattr(c, k)}, is {v}" for k, v in now.items() if getattr(c, k) != v]
        what = "; ".join(changed) or "the range of a design variable, a limit, the layouts or the objective has changed since"
        found.append(f"question_sha256 — the study {study.name} asks something else now: {what}")
    return found


def verify(certificate: Certificate, study: Study, catalog: Catalog) -> list[str]:
    """What is wrong with a certificate: the optimum is evaluated again, and the whole domain is bounded again along its trees."""
    problems = _outdated(certificate, study, catalog)
    if problems:
        return problems
    problem = problem_of(study, catalog, certificate.family, certificate.tpot_limit_s)
    if json.loads(json.dumps(asdict(problem.grid))) != json.loads(json.dumps(certificate.grid)):
        problems.append("grid — differs from that of the study")
    if certificate.design is not None and certificate.layout is not None and certificate.optimum is not None:
        again = _incumbent(problem, certificate.design, certificate.layout).cost
        if not abs(again - certificate.optimum) <= COSTS_AGREE * certificate.optimum:
            problems.append(f"optimum — found {certificate.optimum:.9g}, evaluated again {again:.9g} USD")
    claimed = np.inf if certificate.bound is None else certificate.bound
    try:
        least, leaves = check(problem, claimed, certificate.trees, 2 * certificate.boxes + AGAIN)
    except ValueError as error:
        return [*problems, f"trees — {error}"]
    if not least >= claimed * (1 - TIGHT):
        problems.append(f"bound — found {claimed:.9g}, but a leaf of {leaves} allows {least:.9g} USD")
    return problems


def study_of(certificate: Certificate, catalog: Catalog) -> Study:
    """The study that a certificate speaks of, by its name."""
    return read_study(certificate.study, catalog)


def beside(folder: Path, study: Study, catalog: Catalog) -> list[Certificate]:
    """Certificates in a folder that were issued for exactly what a study asks and this catalogue; what cannot be read is left out."""
    found = [still_good(path, study, catalog) for path in sorted(folder.glob(f"{study.name}-*.json"))]
    return [c for c in found if c is not None]


def rows(certificates: Sequence[Certificate], found: Mapping[tuple[str, float], float]) -> list[dict[str, Any]]:
    """One row a certificate for a report: its bound, and how far below the best known design (the study's: ``found``) it lies."""
    table = []
    for c in certificates:
        cost = found.get((c.family, c.tpot_limit_s))
        best = min((x for x in (cost, c.optimum) if x is not None), default=None)
        gap = None if best is None or c.bound is None else 1.0 - c.bound / best
        table.append(
            {
                "family": c.family, "tpot_limit_s": c.tpot_limit_s, "found_by_the_study": cost, "found_by_the_certificate": c.optimum,
                "lower_bound": c.bound, "optimality_gap": gap, "boxes": c.boxes, "seconds": c.seconds,
            }
        )  # fmt: skip
    return table


def worth(certificates: Sequence[Certificate]) -> list[dict[str, Any]]:
    """One row for each shadow price of each optimum: family, limit, name, unit, and what one unit more saves [USD/Mtoken]."""
    return [
        {"family": c.family, "tpot_limit_s": c.tpot_limit_s, "name": name, "unit": EXTRAS[name], "usd_per_million_output_token": price}
        for c in certificates
        for name, price in (c.shadow_prices or {}).items()
    ]


def gap_at(c: Certificate, seconds: float) -> float | None:
    """What a proof still allowed after so many seconds of computing, against the optimum it ended with.

    Where it had ended before, because it had proved enough, that stays; None where it was given less time.
    """
    if c.optimum is None or seconds > c.seconds:
        return c.gap if is_done(c) else None
    bounds = [b for t, _, b in c.history if t is not None and t <= seconds]
    return 1.0 - (bounds[-1] or 0.0) / c.optimum if bounds else 1.0


def gap_table(certificates: Sequence[Certificate]) -> str:
    """Gap against seconds and dimensions, as Markdown; a proof ends where its gap is small enough."""
    heads = ["family", "limit", "continuous + whole + batch", "choices x layouts x formats", *(f"{m:g} s" for m in MARKS)]
    relaxed = list(dict.fromkeys(r for c in certificates for r in c.relaxations))
    lines = [
        "# What is left to gain",
        "",
        "Largest share of the cost of the cheapest design found that a better one could save, against seconds of computing (CPU, one core,"
        " compilation apart). A proof stops below 1 %, and what it has proved stays; a blank means that it was given less time. Numbers of"
        " relaxations: below the table. Written by `dse certify --table DIR`.",
        "",
        f"| {' | '.join(heads)} | at the end | seconds | boxes | relaxed |",
        "|---|--:|---|--:|" + "--:|" * (len(MARKS) + 3) + "---|",
    ]
    for c in sorted(certificates, key=lambda c: (c.family, c.tpot_limit_s)):
        kinds = [v["kind"] for v in c.variables if v["high"] > v["low"] or v["kind"] == "choice"]
        found = [gap_at(c, m) for m in MARKS]
        cells = ["" if g is None else f"{g:.1%}" for g in found]
        end = "nothing feasible" if c.bound is None else "-" if c.gap is None else f"{c.gap:.2%}"
        sizes = f"{kinds.count('real')} + {kinds.count('int')} + 1"
        which = ", ".join(str(relaxed.index(r) + 1) for r in c.relaxations)
        row = [c.family, f"{1e3 * c.tpot_limit_s:g} ms", sizes, f"{c.roots:,}", *cells, end, f"{c.seconds:.1f}", f"{c.boxes:,}", which]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", "What was relaxed:", "", *(f"{k}. {r}" for k, r in enumerate(relaxed, 1)), ""])


def by_family(table: Sequence[Mapping[str, Any]], limits_s: Sequence[float]) -> dict[str, xr.DataArray]:
    """``lower_bound`` and ``optimality_gap`` of the headline case over families and limits, from ``rows``; nan without a certificate."""
    import xarray as xr

    families = list(dict.fromkeys(r["family"] for r in table))
    out = {}
    for name in ("lower_bound", "optimality_gap"):
        values = np.full((len(families), len(limits_s)), np.nan)
        for r in table:
            at = np.flatnonzero(np.isclose(np.asarray(limits_s), r["tpot_limit_s"]))
            if r[name] is not None and len(at):
                values[families.index(r["family"]), at[0]] = r[name]
        coords = {"certified_family": families, "tpot_limit": list(limits_s)}
        out[name] = xr.DataArray(values, dims=("certified_family", "tpot_limit"), coords=coords, attrs=glossary.attrs(name))
    return out
