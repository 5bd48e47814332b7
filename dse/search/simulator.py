"""What if a simulator of one's own, and not the model, says how fast a chip is? It takes the model's place behind the same study.

The model proposes: for every chip its best layouts under every limit. The simulator is asked for each of these deployments once. What it
measures decides which limits are met and what a token costs; the money follows from the measured rate. It may take seconds for an answer.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dse.errors import DseError, InputError
from dse.evaluate import Metrics
from dse.search.designs import Questions, Shop, build_block, pad, tables
from dse.search.finalists import Finalist, Placed, best_of, exact, together
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.shards import Scores
from dse.types import Chip, Deployment, Slacks, named_format

MEASURED = ("tpot_s", "ttft_s", "output_token_per_s_per_chip")
Answer = Mapping[str, float] | None


@dataclass(frozen=True)
class Simulator:
    """A function of a ``Deployment`` that returns some of ``MEASURED`` in SI units, or None where the deployment does not work."""

    name: str  # FILE:FUNCTION, as the study says it
    sha256: str  # of the file
    function: Callable[[Deployment], Answer]
    known: dict[Any, Answer] = field(default_factory=dict, repr=False)  # answers by deployment: each is asked for once in a process

    def ask(self, key: Any, deployment: Callable[[], Deployment]) -> Answer:
        """The answer for a deployment; a number that cannot be is an error."""
        if key not in self.known:
            found = self.function(deployment())
            wrong = [] if found is None else [k for k, v in found.items() if k not in MEASURED or not 0.0 < float(v) < float("inf")]
            if wrong:
                said = ", ".join(f"{k} = {(found or {})[k]}" for k in wrong)
                raise DseError(f"{self.name}: answered {said}; allowed are numbers above 0 of {', '.join(MEASURED)}, or None")
            self.known[key] = found
        return self.known[key]


def load_simulator(named: str, folder: Path) -> Simulator:
    """The function of ``FILE:FUNCTION``, the file sought from a folder. Raises InputError where there is none."""
    file, _, name = named.rpartition(":")
    path = folder / file
    spec = importlib.util.spec_from_file_location("simulator_of_the_study", path) if path.suffix == ".py" and path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(f"search.simulator — found {named!r}, allowed FILE.py:FUNCTION with a file in {folder.as_posix()}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"search.simulator — found {named!r}, but {file} has no function {name!r}")
    return Simulator(named, hashlib.sha256(path.read_bytes()).hexdigest(), function)


def measured(m: Metrics, output_tokens: float, found: Mapping[str, np.ndarray]) -> Metrics:
    """Metrics of the model with measured times and rates in their place (nan: not measured), and with the money that follows.

    Where times alone are measured the rate follows by Little's law: as many requests at the same time, each as long as was measured.
    Cost and power of the instance a second stay those of the model.
    """

    def given(name: str, other: Any) -> np.ndarray:
        return np.where(np.isnan(found[name]), np.asarray(other), found[name])

    steps = max(output_tokens - 1.0, 0.0)
    tpot, ttft = given("tpot_s", m.tpot_s), given("ttft_s", m.ttft_s)
    longer = (ttft + steps * tpot) / (np.asarray(m.ttft_s) + steps * np.asarray(m.tpot_s))
    rate = given("output_token_per_s_per_chip", np.asarray(m.output_token_per_s_per_chip) / longer)
    faster, slower = rate / np.asarray(m.output_token_per_s_per_chip), tpot / np.asarray(m.tpot_s)
    adjusted = m.usd_per_million_adjusted_token
    return replace(
        m,
        tpot_s=tpot,
        ttft_s=ttft,
        interactivity_token_per_s=1.0 / tpot,
        output_token_per_s_per_chip=rate,
        total_token_per_s_per_chip=np.asarray(m.total_token_per_s_per_chip) * faster,
        usd_per_million_output_token=np.asarray(m.usd_per_million_output_token) / faster,
        usd_per_million_token=np.asarray(m.usd_per_million_token) / faster,
        usd_per_million_adjusted_token=None if adjusted is None else np.asarray(adjusted) / faster,
        j_per_output_token=np.asarray(m.j_per_output_token) / faster,
        mfu=np.asarray(m.mfu) / slower,
        mbu=np.asarray(m.mbu) / slower,
        time_s=jax.tree.map(lambda x: np.asarray(x) * slower, m.time_s),
        tpot_error=np.zeros_like(tpot),  # of the model; what a simulator's is nobody said
        ttft_error=np.zeros_like(ttft),
    )


def _deployment(case: Case, chips: Chip, who: int, row: np.ndarray, fmt: str) -> Deployment:
    """One deployment with plain numbers, as ``dse.evaluate`` takes it."""
    layout = jax.tree.map(lambda x: float(np.ravel(x)[0]), to_layout(row[None], fmt, is_mixture(case.model)))
    chip = jax.tree.map(lambda x: float(np.ravel(x)[who]), chips)
    return Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=case.prices[0])


def _asked(simulator: Simulator, case: Case, chips: Chip, who: np.ndarray, rows: np.ndarray, formats: Sequence[str]) -> dict[str, Any]:
    """What the simulator says of (chip, layout, format) triples: arrays (k,) by name, and ``works``."""
    out: dict[str, Any] = {name: np.full(len(who), np.nan) for name in MEASURED} | {"works": np.ones(len(who), bool)}
    prints = [np.array([float(np.ravel(x)[i]) for x in jax.tree.leaves(chips)]).tobytes() for i in range(int(who.max(initial=-1)) + 1)]
    for k, (i, row, fmt) in enumerate(zip(who.tolist(), rows, formats, strict=True)):
        key = (prints[i], case.model_id, case.workload_id, row.tobytes(), fmt)
        answer = simulator.ask(key, lambda i=i, row=row, fmt=fmt: _deployment(case, chips, i, row, fmt))  # type: ignore[misc]
        out["works"][k] = answer is not None
        for name, value in (answer or {}).items():
            out[name][k] = float(value)
    return out


@dataclass(frozen=True)
class _Trials:
    """Deployments of some chips in one case, as measured: arrays (k,), and metrics and their validity by owner."""

    who: np.ndarray
    formats: np.ndarray
    metrics: tuple[Metrics, ...]
    works: np.ndarray  # every limit but those on times per token is met

    def cost(self, owner: int, limit_s: float) -> np.ndarray:
        """Cost of each deployment to an owner, infinite where it misses a limit."""
        m = self.metrics[owner]
        return np.where(self.works & (np.asarray(m.tpot_s) <= limit_s), np.asarray(m.usd_per_million_output_token), np.inf)


def _trials(
    simulator: Simulator, case: Case, finalists: Sequence[Finalist], chips: Chip, grid: Grid, table: np.ndarray, limits: Sequence[float]
) -> tuple[_Trials, int] | None:
    """The layouts that the model thinks best for each chip, for any owner and limit, as the simulator finds them; None without any."""
    best = best_of(case, finalists, chips, grid, table, limits)
    _, limit, who = np.nonzero(best.layout >= 0)
    if not len(limit):
        return None
    at = best.layout >= 0
    triples = np.unique(np.stack([who, best.layout[at], best.format[at]], axis=1), axis=0)
    who, rows, chosen = triples[:, 0], table[triples[:, 1]], triples[:, 2]
    names = np.array(grid.formats, object)[chosen]
    found = _asked(simulator, case, chips, who, rows, names.tolist())
    osl = float(np.asarray(case.workload.output_tokens))
    metrics = tuple(measured(exact(case, chips, who, rows, chosen, grid.formats, p), osl, found) for p in case.prices)
    works = found["works"] & np.asarray(metrics[0].feasible) & (np.asarray(metrics[0].ttft_s) <= case.ttft_limit_s)
    return _Trials(who, names, metrics, works), len(triples)


def place(simulator: Simulator, case: Case, finalists: Sequence[Finalist], grid: Grid, limits: Sequence[float]) -> Iterator[Placed]:
    """As ``finalists.place``: chips in the layouts that are best under every limit as measured; one ``Placed`` for each owner."""
    formats = tuple(dict.fromkeys(f for x in finalists for f in x.formats))
    grid = replace(grid, formats=formats).thinned()
    found = _trials(simulator, case, finalists, together(finalists), grid, layout_table(case.model, grid), limits)
    if found is None:
        return
    trials, _ = found
    for owner in range(len(case.prices)):
        picked: list[tuple[int, int, int]] = []  # chip, limit, trial
        for k, limit_s in enumerate(limits):
            cost = trials.cost(owner, limit_s)
            for i in np.unique(trials.who[np.isfinite(cost)]).tolist():
                mine = np.flatnonzero(trials.who == i)
                picked.append((i, k, int(mine[np.argmin(cost[mine])])))
        if not picked:
            continue
        who, limit, at = np.array(picked).T
        names = trials.formats[at]
        cache = np.array([named_format(f).kv_byte for f in names])
        yield Placed(
            who=who,
            scenario=np.full_like(who, owner),
            limit=limit,
            metrics=jax.tree.map(lambda x: np.asarray(x)[at], trials.metrics[owner]),  # noqa: B023
            format_weights=names,
            format_kv=np.where(cache < 2, "fp8", "bf16").astype(object),
            valid=np.ones(len(at), bool),
        )


def block_scorer(
    simulator: Simulator, shop: Shop, questions: Questions, grid: Grid, size: int
) -> Callable[[dict[str, np.ndarray]], Scores]:
    """As ``designs.block_scorer``, with what the simulator measures."""
    thin = grid.thinned()
    known, limits = tables(questions.cases, thin), questions.limits_s

    def evaluate_block(values: dict[str, np.ndarray]) -> Scores:
        n = len(next(iter(values.values())))
        chips = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x, float), (size,)), build_block(shop, pad(values, size)).chip)
        finalists = [Finalist(jax.tree.map(lambda x, i=i: x[i], chips), tuple(thin.formats)) for i in range(n)]
        chips = jax.tree.map(lambda x: x[:n], chips)
        costs, fastest, asked = [], [], 0
        for case in questions.cases:
            found = _trials(simulator, case, finalists, chips, thin, known[case.model_id], limits)
            cost, fast = np.full((len(case.prices), len(limits), n), np.inf), np.full(n, np.inf)
            if found is not None:
                trials, count = found
                asked += count
                for owner in range(len(case.prices)):
                    for k, limit_s in enumerate(limits):
                        np.minimum.at(cost[owner, k], trials.who, trials.cost(owner, limit_s))
                np.minimum.at(fast, trials.who, np.where(trials.works, np.asarray(trials.metrics[0].tpot_s), np.inf))
            costs.append(cost)
            fastest.append(fast)
        best = costs[questions.headline_case][questions.headline_scenario].min(axis=0)
        limit_slack = {f.name: -np.broadcast_to(np.asarray(getattr(chips.slack, f.name)), (n,)) for f in fields(Slacks)}
        return Scores(
            costs=np.concatenate([*(c.reshape(-1, n) for c in costs), fastest]).T,
            values=np.stack([best, fastest[questions.headline_case]][: len(questions.objectives)], axis=1),
            constraints={**limit_slack, "headline": np.where(np.isfinite(best), 0.0, 1.0)},
            evaluations=asked,
        )

    return evaluate_block
