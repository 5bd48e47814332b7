"""What is a study, once it is read? Frozen records of plain Python: names, limits, grids, and the text they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dse.study.analyses import Analysis
from dse.study.claims import ClaimRow

EXPERT_LAYOUTS = ("none", "full")  # experts as the weights they are (ep = 1), or spread over all chips of a stage


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is promised to users [s], and how large an instance may be."""

    tpot: tuple[float, ...]  # mean time per output token, descending
    ttft: Mapping[str, float] = field(default_factory=dict)  # to the first token, by workload; others take the workload's own limit
    max_chips: int = 4096


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The case that the report answers first; ``tpot`` in s."""

    model: str
    workload: str
    scenario: str
    tpot: float
    analysis: str = ""  # the analysis whose finding the report leads with, instead of who wins


@dataclass(frozen=True, kw_only=True)
class Layouts:
    """The grid of layouts that is tried on every chip: all combinations that fit."""

    tp: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    pp: tuple[int, ...] | None = None  # None: stages of 1, 2, 3, ... whole layers, by the depth of the model
    dp: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)  # attention ranks, for mixtures of experts
    ep: tuple[str, ...] = EXPERT_LAYOUTS
    batch: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    formats: tuple[str, ...] = ("bf16", "fp8", "nvfp4", "int4", "int3")
    kv_offload: float | None = None  # share of the cache in the memory of the host, in every layout
    redundant_experts: float | None = None  # further copies of busy experts for each rank of expert parallelism, in every layout
    quality: Mapping[str, float] = field(default_factory=dict)  # worth of a token by format of the weights; 1 where nothing is stated
    widened: tuple[str, ...] = ()  # those of the formats that chips which move their weights may widen, too (int4 on a GPU)

    @property
    def fixed(self) -> list[str]:
        """Fields that say something of every layout, beyond what is enumerated."""
        return [n for n in ("kv_offload", "redundant_experts", "quality") if getattr(self, n) not in (None, {})]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How chips are chosen: what is asked from the sampler and what is bred from the archive in one round."""

    sampler: str = "nsga2"
    explore: bool = True
    asked: int = 8
    bred: int = 120
    finish: int = 100  # rounds on the headline question alone after the search, on every batch; 0 leaves its quick look out too
    finish_others: int = 25  # rounds on each other case after that
    polish: bool = True  # whether the headline's best chips are polished at the end
    certify: int = 0  # boxes cut to prove how near each family's cheapest design of the headline is to the optimum
    warm_start: str = ""  # study or folder of an earlier result, whose designs the search begins with
    simulator: str = ""  # FILE.py:FUNCTION beside the study file, which takes the model's place for times and rates
    gap: float | None = None  # relative, proved: where a family's search may end before its budget


@dataclass(frozen=True, kw_only=True)
class Study:
    """One checked study file. ``text`` and ``sha256`` are of the file as it was read, ``label`` is its name in messages."""

    name: str
    title: str
    question: str
    seed: int
    budget: int  # chips evaluated over the whole study
    max_seconds: float | None
    models: tuple[str, ...]
    workloads: tuple[str, ...]
    scenarios: tuple[str, ...]
    limits: Limits
    headline: Headline
    families: Mapping[str, Mapping[str, Any]]  # by name: what is said of its design variables, as ``space.space_of`` takes it
    real_chips: tuple[str, ...]
    layouts: Layouts
    search: Search
    objectives: tuple[str, ...]
    kind: str = "search"  # or "claims": the rows are checked, with the designs of the search or of another study's result
    designs_from: str = ""  # study whose result, where there is one, gives the designs that rows compare
    rows: tuple[ClaimRow, ...] = ()
    mix: Mapping[str, float] = field(default_factory=dict)  # workload to weight: the search looks for one design that serves them all
    analyses: tuple[Analysis, ...] = ()  # further sections of the report
    text: str = field(repr=False)
    path: Path
    label: str

    @property
    def sha256(self) -> str:
        """Digest of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def certified_question(self, family: str, limit_s: float) -> dict[str, Any]:
        """What a certificate answers: the cheapest design of a family in the headline case under one limit, as plain data.

        Nothing here says how hard is searched, how a report is written, or what other families and cases are asked.
        """
        layouts = {k: v for k, v in asdict(self.layouts).items() if k != "widened"}  # which is for chips that exist
        head = self.headline
        return {
            "model": head.model,
            "workload": head.workload,
            "prices": head.scenario,
            "objective": self.objectives[0],
            "family": family,
            "space": self.families.get(family, {}),
            "tpot_limit_s": limit_s,
            "ttft_limit_s": self.limits.ttft.get(head.workload),  # None: the workload's own
            "max_chips": self.limits.max_chips,
            "layouts": layouts,
        }

    def question_sha256(self, family: str, limit_s: float) -> str:
        """Digest of ``certified_question``; numbers are written alike whether the file says 4 or 4.0."""
        return hashlib.sha256(json.dumps(_plain(self.certified_question(family, limit_s)), sort_keys=True).encode()).hexdigest()

    @property
    def cases(self) -> list[tuple[str, str, str]]:
        """Every (model, workload, scenario) that is answered."""
        return [(m, w, s) for m in self.models for w in self.workloads for s in self.scenarios]


def _plain(value: Any) -> Any:
    """The same with every number a float and every sequence a list."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
