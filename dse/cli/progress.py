"""How far is a run? A bar with the remaining time on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dse.cli.common import say

Report = Callable[[float, float, str], None]  # done, total, what is happening
LINE_S = 10.0  # seconds between two plain lines


@contextmanager
def progress() -> Iterator[Report]:
    """A function that is told how many of how many chips are done."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield plain_lines(time.monotonic, LINE_S)


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)

        def report(done: float, total: float, what: str = "") -> None:
            bar.update(task, completed=done, total=total or None, description=what or "chips")

        yield report


def plain_lines(clock: Callable[[], float], every_s: float) -> Report:
    """A report that prints a line at the start, at every change of what is done after ``every_s`` seconds, and at the end."""
    begun, last = clock(), [-every_s]

    def report(done: float, total: float, what: str = "") -> None:
        passed = clock() - begun
        if passed - last[0] < every_s and done < total:
            return
        last[0] = passed
        left = f", about {passed / done * (total - done):.0f} s left" if 0 < done < total else ""
        say(f"{what or 'chips'}: {done:.0f}/{total:.0f} after {passed:.0f} s{left}")

    return report
