"""All rows of ``hypervolume.py`` at once: every run in a process of its own, each process pinned to one core.

    python benchmarks/hypervolume_all.py                 # on all cores; on 16 of them below nine minutes, on two about an hour
    python benchmarks/hypervolume_all.py --smoke         # seconds instead of minutes: does everything run?
    python benchmarks/hypervolume_all.py --reference 600 # only 10 minutes of the default search on each of the two families compared
    python benchmarks/hypervolume_all.py --ten           # only the default search of every family, 10 s, 5 seeds
    python benchmarks/hypervolume_all.py --samplers      # only the samplers alone on the two families compared, 60 s, 3 seeds
    python benchmarks/hypervolume.py --table > benchmarks/results/hypervolume.md

Runs: the two families of the comparison with every sampler (60 s, 3 seeds), the other families with every sampler (10 s, one seed), the
default search of every family (10 s, 5 seeds, and 60 s), and 300 s of it as reference (twice where certificates leave a gap). A first pass
compiles what the others then find in the cache. Rows go to ``benchmarks/results/hypervolume.csv``, which is written anew; ``--reference``,
``--ten`` and ``--samplers`` replace their own rows alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, Queue

from dse.chips import FAMILIES

HERE = Path(__file__).parent
RESULT = HERE / "results" / "hypervolume.csv"
COMPARED = ("sram", "transformer_asic")
ALONE = ("tpe", "nsga2", "qmc", "random", "cmaes", "pymoo-nsga2")
REFERENCE_S = 300.0
UNPROVED = ("compute_in_memory",)  # whose certificates leave a gap: two reference runs
Job = tuple[str, str, int, float]  # family, method, seed, seconds


def jobs() -> list[Job]:
    """Every run, what matters most and lasts longest first."""
    found: list[Job] = [(f, "default", seed, REFERENCE_S) for f in FAMILIES for seed in range(1 + (f in UNPROVED))]
    found += [(f, "default", seed, 10.0) for f in FAMILIES for seed in range(5)]
    found += [(f, m, seed, 60.0) for f in COMPARED for m in (*ALONE, "default") for seed in range(3)]
    return found + [(f, m, 0, 10.0) for f in FAMILIES if f not in COMPARED for m in ALONE]


def run(job: Job, core: int, out: Path) -> str:
    """One run on one core; its last line, or what went wrong."""
    family, method, seed, seconds = job
    command = [sys.executable, "-W", "ignore", str(HERE / "hypervolume.py"), "--families", family, "--methods", method]
    command += ["--seed", str(seed), "--seconds", f"{seconds:g}", "--out", str(out)]
    found = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return (found.stdout if found.returncode == 0 else found.stderr).strip().rpartition("\n")[2]


def work_off(todo: list[Job], cores: list[int], folder: Path, until: float = float("inf")) -> None:
    """Runs in the order given, each on the core that is free; none begins that could not end by a moment of the clock."""
    queue: Queue[tuple[int, Job]] = Queue()
    for item in enumerate(todo):
        queue.put(item)
    begin = time.monotonic()

    def take(core: int) -> None:
        while True:
            try:
                number, job = queue.get_nowait()
            except Empty:
                return
            if time.monotonic() + job[-1] > until:
                continue
            said = run(job, core, folder / f"{number}.csv")
            print(f"{time.monotonic() - begin:5.0f} s, core {core}: {said}", flush=True)

    workers = [threading.Thread(target=take, args=(core,)) for core in cores]
    for w in workers:
        w.start()
    for w in workers:
        w.join()


def key(row: dict[str, str]) -> tuple[str, str, float, int]:
    """The run that a row belongs to."""
    return row["family"], row["method"], float(row["budget"]), int(row["seed"])


def main() -> None:
    """Compile, run all, write the file anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--smoke", action="store_true", help="three seconds a run, one seed, written to a folder for temporary files")
    parser.add_argument("--within", type=float, default=float("inf"), metavar="S", help="begin no run that could not end in this time")
    parser.add_argument("--reference", type=float, metavar="S", help="only a run of so many seconds for each family of the comparison")
    parser.add_argument("--ten", action="store_true", help="only the default search of every family, 10 s, 5 seeds")
    parser.add_argument("--samplers", action="store_true", help="only the samplers alone on the two families compared")
    asked = parser.parse_args()
    until = time.monotonic() + asked.within
    cores, todo = sorted(os.sched_getaffinity(0))[: asked.cores], jobs()
    some = bool(asked.reference or asked.ten or asked.samplers)
    if some:
        ten = [j for j in todo if asked.ten and j[1] == "default" and j[3] == 10.0]
        todo = ten + [j for j in todo if asked.samplers and j[1] in ALONE and j[0] in COMPARED]
        todo = [(f, "default", 0, asked.reference) for f in COMPARED if asked.reference] + todo
    if asked.smoke:
        todo = [(f, m, seed, 3.0) for f, m, seed, _ in dict.fromkeys((f, m, 0, 3.0) for f, m, _, _ in todo)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        print(f"{len(todo)} runs on {len(cores)} cores; first what must be compiled", flush=True)
        (folder / "first").mkdir()
        work_off([(f, "default", 0, 0.0) for f in dict.fromkeys(f for f, *_ in todo)], cores, folder / "first")
        work_off(todo, cores, folder, until)
        parts = sorted(folder.glob("*.csv"), key=lambda p: int(p.stem))
        rows = [row for part in parts for row in csv.DictReader(part.read_text().splitlines())]
    missing = len(todo) - len(parts)
    result = Path(tempfile.gettempdir()) / RESULT.name if asked.smoke else RESULT
    if some and not asked.smoke:
        new = {key(r) for r in rows}
        rows += [r for r in csv.DictReader(RESULT.read_text(encoding="utf-8").splitlines()) if key(r) not in new]
    with result.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=key))
    print(f"{result}: {len(rows)} rows" + (f"; {missing} runs failed or had no time, see above" if missing else ""))


if __name__ == "__main__":
    main()
