"""The study as a user sees it: one Optuna trial = one chip with its whole inner front. The only module that imports Optuna.

The journal is the ledger; each round is written as finished trials, in bulk, and then sealed by a study attribute. The sampler works on a
copy in memory that holds the sealed rounds and nothing else, with a seed of its own for each round: so a study that was killed and resumed,
or that ran on one worker or two, asks for the same chips.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import os
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._ga._base import BaseGASampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.trial import FrozenTrial, TrialState, create_trial

from dse.errors import DseError, InputError, closest
from dse.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

SEALED = "sealed_rounds"
CLAIM = "claimed_by"
CLAIM_S = 1.0  # longer than two workers that start together take to write their names
OPENINGS = 5  # of a database that another process is creating
RACES = ("IntegrityError", "ProgrammingError", "OperationalError")  # what SQLAlchemy says of it
GRPC = "grpc://"
SEEN = 64  # cheapest and latest chips that a sampler beside ``explore`` looks at
WORST = 1e12  # finite stand-in for the value of a chip without a feasible layout; its named constraints say that it has none


@dataclass(frozen=True)
class Entry:
    """One chip as it is recorded: its decisions by name, its values, constraints and inner front."""

    decisions: Mapping[str, float | int | str]
    values: tuple[float, ...]  # least cost, fastest token (and what else is an objective), all of the headline case
    constraints: Mapping[str, float]  # <= 0 is feasible
    front: Sequence[float]  # cost in every cell, inf where infeasible
    origin: str  # "asked" from the sampler, "bred" from the archive, "looked" or "finished" by the headline's own search
    system: Mapping[str, Any] = field(default_factory=dict)  # what a sampler without generations noted on it (the state of CMA-ES)


@dataclass(frozen=True)
class Ledger:
    """One Optuna study (one shard of ours) in its storage."""

    study: optuna.Study
    distributions: Mapping[str, BaseDistribution]


SINGLE = ("cmaes", "CmaEsSampler")  # take one objective: they are told the mean logarithm of cost over all cells instead
PACKAGES = {"cmaes": "cmaes", "CmaEsSampler": "cmaes", "gp": "torch", "GPSampler": "torch"}  # not installed with this package


def samplers() -> dict[str, Any]:
    """Samplers by name; each takes a seed. Those of Optuna go by the name of their class too, with what they take by themselves."""
    return {
        "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=32),
        "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=32),
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
        "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    } | {name: functools.partial(_by_class, name) for name in sorted(optuna.samplers.__all__) if _takes_seed(name)}


def _takes_seed(name: str) -> bool:
    """Whether a class of Optuna's samplers is made from a seed alone."""
    maker = getattr(optuna.samplers, name)
    if not (inspect.isclass(maker) and issubclass(maker, optuna.samplers.BaseSampler)) or inspect.isabstract(maker):
        return False
    known = inspect.signature(maker).parameters.values()
    needed = [p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return not needed and any(p.name == "seed" for p in known)


def _by_class(name: str, seed: int) -> optuna.samplers.BaseSampler:
    return getattr(optuna.samplers, name)(seed=seed)


def sampler_of(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler. Raises InputError for an unknown name, and for one whose package is not installed."""
    known = samplers()
    if name not in known:
        raise InputError(f"search.sampler — found {name!r}, allowed {', '.join(known)}{closest(name, known)}")
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        without = ", ".join(n for n in known if n not in PACKAGES)
        raise InputError(
            f"search.sampler — found {name!r}, which needs the package {package} (pip install {package}, or dse[samplers]), "
            f"allowed without it {without}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return known[name](seed)
    except ImportError as error:
        raise InputError(f"search.sampler — found {name!r}, which needs a package ({error}), allowed another one") from error


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's view of a family's design variables; a variable with a single value is left out."""
    found: dict[str, BaseDistribution] = {}
    for v in space.variables:
        if v.size <= 1:
            continue
        if v.kind == "choice":
            found[v.name] = CategoricalDistribution(list(v.names))
        elif v.kind == "int":
            found[v.name] = IntDistribution(round(v.low), round(v.high))
        else:
            found[v.name] = FloatDistribution(v.low, v.high, log=v.log)
    return found


def trim_journal(path: Path) -> None:
    """Cut a last line that a killed process left unfinished, so that the journal can be read and continued."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


class _Journal(JournalFileBackend):
    """A journal file that waits for the disk at the seal of a round, not at each of its hundred lines."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with get_lock_file(self._lock), Path(self._file_path).open("ab") as file:
            file.write(text.encode())
            if any(SEALED in log.get("user_attr", {}) for log in logs):
                file.flush()
                os.fsync(file.fileno())


def open_storage(where: str | Path) -> BaseStorage:
    """Storage of a journal file (a path), of any Optuna storage URL, or of Optuna's gRPC proxy (``grpc://HOST:PORT``).

    Raises DseError when it cannot be read, InputError where a package for it is missing.

    Two processes that open an empty database at the same time both create its tables, and one of them fails: it tries again.
    """
    for attempt in range(OPENINGS):
        try:
            if isinstance(where, Path):
                trim_journal(where)
                return JournalStorage(_Journal(str(where)))
            if where.startswith(GRPC):
                return _grpc(where)
            return optuna.storages.get_storage(where)
        except InputError:
            raise
        except Exception as error:
            if attempt + 1 == OPENINGS or type(error).__name__ not in RACES:
                raise _unreadable(where, error) from error
            time.sleep(CLAIM_S)
    raise AssertionError("unreachable")


def _grpc(url: str) -> BaseStorage:
    """The client of a proxy that serves some storage to many machines."""
    host, _, port = url.removeprefix(GRPC).rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"storage — found {url!r}, allowed {GRPC}HOST:PORT")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    except ImportError:
        raise InputError(f"storage — found {url!r}, which needs the packages grpcio and protobuf (pip install dse[grpc])") from None


def _unreadable(where: str | Path, error: Exception) -> DseError:
    said = error.details() if callable(getattr(error, "details", None)) else error  # type: ignore[attr-defined]
    what = f"cannot be read ({type(error).__name__}: {said})"
    return DseError(f"{where}: storage — {what}; start again with --force, or name another --storage")


def open_ledger(storage: BaseStorage, name: str, space: Space, attributes: Mapping[str, Any], objectives: int = 2) -> Ledger:
    """The study of a shard, created or continued. A study made for something else (other ``attributes``) is refused."""
    directions = [optuna.study.StudyDirection.MINIMIZE] * objectives
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except Exception as error:
        raise _unreadable(name, error) from error
    for key, value in attributes.items():
        known = study.user_attrs.get(key)
        if known is None:
            study.set_user_attr(key, value)
        elif known != value:
            raise InputError(f"{name}: {key} — the storage holds a study with {known!r}, now {value!r}; use --force or another --out")
    return Ledger(study, distributions_of(space))


def claimed(ledger: Ledger, patience_s: float = CLAIM_S) -> bool:
    """Take a shard for this process, unless another one has it: the last to write its name and to find it there after a while.

    A claim stays when a worker dies; ``dse run --resume`` finishes what it left.
    """
    if ledger.study.user_attrs.get(CLAIM):
        return False
    mine = uuid.uuid4().hex
    ledger.study.set_user_attr(CLAIM, mine)
    time.sleep(patience_s)
    return bool(ledger.study.user_attrs.get(CLAIM) == mine)


def sealed_rounds(ledger: Ledger) -> int:
    """Rounds that are completely recorded."""
    return int(ledger.study.user_attrs.get(SEALED, 0))


def _trials_of_round(ledger: Ledger, number: int) -> list[FrozenTrial]:
    return [t for t in ledger.study.get_trials(deepcopy=False) if t.user_attrs.get("round") == number]


def entries(ledger: Ledger, number: int) -> list[Entry]:
    """What a sealed round recorded, in its order."""
    return [
        Entry(
            decisions=t.user_attrs["decisions"],
            values=tuple(t.values),
            constraints=dict(t.constraints),
            front=[math.inf if x is None else x for x in t.user_attrs["front"]],
            origin=t.user_attrs["origin"],
        )
        for t in _trials_of_round(ledger, number)
    ]


class _Seen(optuna.storages.InMemoryStorage):
    """A storage that takes finished trials as they are: copying each one deeply, every round, would cost more than all evaluations."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is None:
            return super().create_new_trial(study_id)
        with self._lock:
            trial = copy.copy(template_trial)
            self._max_trial_id += 1
            trial.number, trial._trial_id = len(self._studies[study_id].trials), self._max_trial_id
            self._trial_id_to_study_id_and_number[trial._trial_id] = (study_id, trial.number)
            self._studies[study_id].trials.append(trial)
            return trial._trial_id


def memory_study(recorded: Sequence[FrozenTrial], objectives: int = 2) -> optuna.Study:
    """The recorded trials as a study in memory, for the sampler to look at."""
    storage = _Seen()
    study = optuna.create_study(storage=storage, directions=[optuna.study.StudyDirection.MINIMIZE] * objectives)
    for trial in recorded:
        storage.create_new_trial(study._study_id, trial)
    return study


def seen(recorded: Sequence[FrozenTrial], key: str | None) -> list[FrozenTrial]:
    """What a sampler beside ``explore`` looks at: the cheapest chips so far and the latest, as one generation.

    It is asked for a few chips in each of many rounds; all that was ever recorded would slow it down without changing its answer much.
    """
    cheapest = sorted(range(len(recorded)), key=lambda i: (recorded[i].values[0], i))[:SEEN]
    chosen = sorted({*cheapest, *range(max(len(recorded) - SEEN, 0), len(recorded))})
    found = [copy.copy(recorded[i]) for i in chosen]
    for trial in found:
        trial.system_attrs = trial.system_attrs if key is None else {key: 0}
    return found


def scalar(trial: FrozenTrial) -> FrozenTrial:
    """The same trial with one value: the mean logarithm of cost over all cells of its front."""
    costs = [WORST if x is None else x for x in trial.user_attrs["front"]]
    found = copy.copy(trial)
    found.values = [float(np.log(np.maximum(costs, 1e-300)).mean())]
    return found


def frozen(ledger: Ledger, entry: Entry, number: int, generation: tuple[str, int] | None) -> FrozenTrial:
    """An entry as a finished trial."""
    trial = create_trial(
        params={k: entry.decisions[k] for k in ledger.distributions},
        distributions=dict(ledger.distributions),
        values=[v if math.isfinite(v) else WORST for v in entry.values],
        constraints=dict(entry.constraints),
        user_attrs={
            "round": number,
            "origin": entry.origin,
            "decisions": dict(entry.decisions),
            "front": [x if math.isfinite(x) else None for x in entry.front],
        },
        system_attrs=dict(entry.system) if generation is None else {generation[0]: generation[1]},
        state=TrialState.COMPLETE,
    )
    return trial


def _generation(sampler: optuna.samplers.BaseSampler, recorded: Sequence[FrozenTrial]) -> tuple[str, int] | None:
    """Key and number of the generation that a genetic sampler is filling, so that bred chips can become parents too."""
    if not isinstance(sampler, BaseGASampler):
        return None
    key = type(sampler)._get_generation_key()
    last = max((t.system_attrs.get(key, 0) for t in recorded), default=0)
    members = sum(t.system_attrs.get(key) == last for t in recorded)
    return key, last + (members >= (sampler.population_size or 1))


@dataclass(frozen=True)
class Asked:
    """What a sampler proposes for some chips."""

    decisions: list[dict[str, Any]]
    generation: tuple[str, int] | None  # that a genetic sampler is filling
    system: list[dict[str, Any]]  # what the sampler noted on each


def ask(ledger: Ledger, sampler_name: str, seed: int, count: int, alone: bool = True) -> Asked:
    """What the sampler proposes for ``count`` chips, from the sealed rounds only.

    ``alone``: nothing else proposes chips, so that the sampler looks at all that was recorded.

    Raises:
        InputError: a sampler that cannot search this space.
    """
    done, single = sealed_rounds(ledger), sampler_name in SINGLE
    recorded = [t for t in ledger.study.get_trials(deepcopy=False) if t.user_attrs.get("round", done) < done]
    sampler = sampler_of(sampler_name, seed)
    generation = _generation(sampler, recorded)
    shown = recorded if alone or single else seen(recorded, None if generation is None else generation[0])
    study = memory_study([scalar(t) for t in shown] if single else shown, 1 if single else len(ledger.study.directions))
    study.sampler = sampler
    try:
        trials = [study.ask(dict(ledger.distributions)) for _ in range(count)]
    except ValueError as error:
        raise InputError(
            f"search.sampler — found {sampler_name!r}, which cannot search this space ({error}), allowed another one"
        ) from error
    system = [{} if generation is not None else dict(t.system_attrs) for t in study.get_trials(deepcopy=False)[len(shown) :]]
    return Asked([t.params for t in trials], generation, system)


def record(ledger: Ledger, number: int, found: Sequence[Entry], generation: tuple[str, int] | None, counts: Mapping[str, float]) -> None:
    """Write a round as finished trials and seal it; a round that was half written by a killed run is completed, not repeated."""
    already = len(_trials_of_round(ledger, number))
    ledger.study.add_trials([frozen(ledger, e, number, generation) for e in found[already:]])
    for key, value in counts.items():
        ledger.study.set_user_attr(key, value)
    ledger.study.set_user_attr(SEALED, number + 1)


def seed_of(seed: int, label: str, number: int) -> np.random.Generator:
    """Generator of a round, from (seed, shard, round) alone."""
    return np.random.default_rng([seed, *label.encode(), number])
