"""What does a study file mean? ``read_study`` checks its form, ``check_study`` its names against a catalogue, ``new_study`` copies one."""

from __future__ import annotations

from dse.study.analyses import Analysis
from dse.study.check import check_study
from dse.study.files import find_study, new_study, read_study, shipped_studies
from dse.study.read import parse_study
from dse.study.record import Headline, Layouts, Limits, Search, Study
from dse.study.values import SAMPLERS, seconds

__all__ = [
    "SAMPLERS",
    "Analysis",
    "Headline",
    "Layouts",
    "Limits",
    "Search",
    "Study",
    "check_study",
    "find_study",
    "new_study",
    "parse_study",
    "read_study",
    "seconds",
    "shipped_studies",
]
