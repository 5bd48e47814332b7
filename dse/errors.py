"""The three exceptions of the package; every message says where, what was found, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DseError(Exception):
    """The run failed for a reason that the user can act on (exit code 1)."""

    exit_code = 1


class InputError(DseError):
    """Files or arguments are wrong (exit code 2). Carries every problem that was found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]):
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class InfeasibleError(DseError):
    """The question is well posed but no design meets its limits (exit code 3)."""

    exit_code = 3


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name nearest to ``name``, or an empty string.

    >>> closest("nvidia-h100", ["nvidia-h100-sxm", "groq-lpu-v1"])
    "; did you mean 'nvidia-h100-sxm'?"
    >>> closest("zzz", ["a"])
    ''
    """
    best = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{best[0]}'?" if best else ""
