"""``dse worker``: search shards of a study in a storage that many machines share; ``dse run --storage URL --resume`` then reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dse.cli.common import CatalogOption, JsonOption, StudyArgument, open_catalog, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command("worker")(worker_command)


def worker_command(
    study: StudyArgument,
    storage: Annotated[str, typer.Option("--storage", metavar="URL", help="Optuna storage that the workers share.")],
    budget: Annotated[int | None, typer.Option("--budget", metavar="N", min=1, help="Chips of the whole study, as for dse run.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Another seed than the study's.")] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next shard of a study that no worker has, search it, until none is left."""
    from dse.run import work_off
    from dse.study import read_study

    asked = read_study(study, open_catalog(catalog))
    taken = []
    for label, chips in work_off(asked, storage, budget, seed, None if catalog is None else str(Path(catalog))):
        taken.append(label)
        say(f"{label}: {chips} chips")
    if as_json:
        print_json({"study": asked.name, "storage": storage, "shards": taken})
    else:
        print("\n".join(taken) or "no shard was left")
