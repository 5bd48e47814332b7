"""``dse bench``: how many designs a second does this machine evaluate, and how long does a command take to start?"""

from __future__ import annotations

from typing import Annotated

import typer

from dse.cli.common import JsonOption, print_json

LABELS = {
    "evaluations_per_s": "chips x layouts, best of ten limits with layout",
    "flat_evaluations_per_s": "one by one (flat batch)",
    "numpy_evaluations_per_s": "the same text by NumPy, chips x layouts",
    "limit_evaluations_per_s": "limit of the machine by XLA's count",
}


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command("bench")(bench_command)


def bench_command(
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0, help="For each figure, compilation apart.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Measure evaluations a second and the warm start on this machine."""
    from dse.bench import bench

    found = bench(seconds)
    if as_json:
        print_json(found)
        return
    models = found["models"]
    print(f"{'million evaluations a second, single precision':52s}" + "".join(f"{name:>14s}" for name in models))
    for key, label in LABELS.items():
        print(f"{label:52s}" + "".join(f"{row[key] / 1e6:14.2f}" for row in models.values()))
    print(f"{'share of that limit reached':52s}" + "".join(f"{row['share_of_limit']:14.1%}" for row in models.values()))
    print(
        f"warm start of dse eval {found['warm_start_s']:.2f} s; {found['cores']} cores, {found['device']}, jax {found['versions']['jax']}"
    )
