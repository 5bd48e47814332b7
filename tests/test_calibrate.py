"""Does calibration find the constants that made the data, and are the committed constants those that it finds?"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dse.calibrate import calibrate, calibrate_new, check, cross_validate, fit_all, joints, read_plan, samples_of, write_newcomers
from dse.calibrate.cross import constants_by_chip, constants_by_kind, left_out, order_of_chips
from dse.calibrate.effects import Cell, cell_of, centre_row, maps_of, slots_of, unseen_row
from dse.calibrate.engine import LEFT_OUT, Step, SystemFit, fit_stage, owners, predicted, system_lines
from dse.calibrate.files import differences, key_of, rewrite, tables, unit_of
from dse.calibrate.fit import Fitted, Residual, Sample, free_of
from dse.calibrate.plan import Fit, Leaf
from dse.catalog import load_catalog
from dse.catalog.kernels import build_kernels
from dse.errors import InputError
from dse.paths import data_dir
from dse.types import Gemm
from dse.validate.operators import RECORDS, Job, machine_of, with_bytes
from dse.validate.predict import seconds, stacked
from dse.validate.resolve import Chips
from dse.validate.rows import read_folder
from dse.validate.runs import Cut, Run
from dse.validate.shapes import Case

CONSTANTS = data_dir("hw_catalog") / "constants"


@pytest.fixture(scope="module")
def plan():
    return read_plan()


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def made_samples(catalog, truth: dict[str, Gemm], noise: float) -> list[Sample]:
    """GEMM rows of two chips whose times follow from known constants, with noise of a fixed seed."""
    chips, rng, found = Chips(catalog, {}), np.random.default_rng(0), []
    names = {"nvidia-h100": "nvidia-h100-sxm", "nvidia-b200": "nvidia-b200-sxm"}
    for file, chip in names.items():
        on = chips.find(chip)
        for m in (1.0, 16.0, 128.0, 1024.0, 8192.0):
            for n in (1024.0, 4096.0, 16384.0):
                for k in (1024.0, 8192.0, 16384.0):
                    case = Case("gemm", "gemm.bf16", "bf16", {"m": m, "n": n, "k": k, "weights": 1.0}, variant="trtllm")
                    args = (stacked([truth[file]]), stacked([machine_of(case, on)]))
                    t = float(seconds("gemm", [with_bytes(case)], *args)[0]) * float(np.exp(noise * rng.standard_normal()))
                    found.append(Sample(Job(len(found), case, on), file, t, (n, k)))
    return found


def gemm(floor_s, compute, memory) -> Gemm:
    return Gemm(
        floor_s=floor_s, compute_efficiency=compute, memory_efficiency=memory, serial_s_per_k=0.9e-9, quantise_pass=0.0, ramp_flop=0.0
    )


def test_known_constants_are_found_again(plan, catalog):
    truth = {"nvidia-h100": gemm(3e-6, 0.8, 0.85), "nvidia-b200": gemm(2.2e-6, 0.65, 0.75)}
    result = fit_all(made_samples(catalog, truth, 0.02), plan, parts=["gemm.bf16"])[0]
    for file, wanted in truth.items():
        for leaf in ("floor_s", "compute_efficiency", "memory_efficiency", "serial_s_per_k"):
            found = result.constants[file][leaf]
            assert found.value == pytest.approx(getattr(wanted, leaf), rel=0.08), (file, leaf)
            assert found.low <= found.value <= found.high
        assert result.residuals[file].median < 0.03
        assert result.residuals[file].by_shape < 0.04
        assert result.residuals[file].other > result.residuals[file].median  # the other chip differs
        assert np.isnan(result.residuals[file].same)  # neither has a second chip of its generation
    shared = {result.constants[file]["serial_s_per_k"].value for file in truth}
    assert len(shared) == 1


def test_a_wild_row_does_not_move_the_fit(plan, catalog):
    truth = {"nvidia-h100": gemm(3e-6, 0.8, 0.85), "nvidia-b200": gemm(2.2e-6, 0.65, 0.75)}
    samples = made_samples(catalog, truth, 0.02)
    wild = [dataclasses.replace(s, seconds=5 * s.seconds) if i % 15 == 0 else s for i, s in enumerate(samples)]
    found = fit_all(wild, plan, False, parts=["gemm.bf16"])[0].constants["nvidia-h100"]
    assert found["compute_efficiency"].value == pytest.approx(0.8, rel=0.1)


def test_the_plan_fits_every_constant_of_its_records(plan):
    for fit in plan.fits:
        record = RECORDS[fit.part.split(".")[0]]
        assert {leaf.name for leaf in fit.leaves} == {f.name for f in dataclasses.fields(record)}, fit.path
    paths = [(f.path, f.rows) for f in plan.fits]
    assert len(set(paths)) == len(paths)


def test_the_rows_of_the_fit_are_neither_flagged_nor_excluded(plan, catalog):
    samples = samples_of(data_dir("hw_catalog") / "measurements", catalog, plan)
    assert len(samples) > 12_000
    fallback = [s for s in samples if s.job.case.constants == "mla_decode" and s.chip in ("nvidia-a100", "nvidia-l40s")]
    assert not fallback
    assert min(s.seconds for s in samples) > 1e-7


PARTS = ["gemm.nvfp4", "elementwise", "dispatch"]


@pytest.fixture(scope="module")
def anew():
    """The parts fitted once: what ``check`` compares with the committed files."""
    return calibrate(None, False, PARTS)


def test_the_committed_constants_are_those_of_a_new_fit(plan, anew):
    assert {done.fit.part for done in anew} == set(PARTS)
    assert differences(anew, plan, CONSTANTS) == []
    assert check(parts=["elementwise"]) == []


@pytest.fixture(scope="module")
def fitted(anew):
    return [done for done in anew if done.fit.part == "gemm.nvfp4"]


def test_writing_changes_fitted_lines_only_and_is_idempotent(plan, fitted, tmp_path):
    folder = tmp_path / "constants"
    shutil.copytree(CONSTANTS, folder)
    before = {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.toml")}
    rewrite(fitted, plan, folder)
    after = {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.toml")}
    changed = [a for name in before for a, b in zip(after[name].splitlines(), before[name].splitlines(), strict=True) if a != b]
    assert all(".nvfp4." in line for line in changed)
    rewrite(fitted, plan, folder)
    assert after == {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.toml")}


def test_a_changed_file_is_noticed(plan, fitted, tmp_path):
    folder = tmp_path / "constants"
    shutil.copytree(CONSTANTS, folder)
    path = folder / "nvidia-b200.toml"
    text = path.read_text(encoding="utf-8").splitlines()
    i = next(i for i, line in enumerate(text) if line.startswith("gemm.nvfp4.floor_s = "))
    text[i] = text[i].replace("value = ", "value = 9", 1)
    path.write_text("\n".join(text), encoding="utf-8")
    found = differences(fitted, plan, folder)
    assert len(found) == 1 and "nvidia-b200.toml: gemm.nvfp4.floor_s" in found[0]


def test_a_part_without_rows_is_substituted_and_marked(catalog):
    records = catalog.records["constants"]
    borrowed = records["nvidia-b200"].values["gemm.mxfp4.floor_s"]
    assert borrowed.kind == "estimate" and borrowed.note == "not measured on this chip: as gemm.nvfp4"
    assert borrowed.value == records["nvidia-b200"].values["gemm.nvfp4.floor_s"].value
    assert borrowed.high >= 1.5 * borrowed.value
    pooled = records["nvidia"].values["gemm.nvfp4.floor_s"]
    assert pooled.note == "centre of nvidia-b200, nvidia-gb200, without what sets one apart"
    assert pooled.low <= min(records[c].values["gemm.nvfp4.floor_s"].value for c in ("nvidia-b200", "nvidia-gb200"))


def test_a_fit_of_some_parts_writes_no_pools(plan, fitted):
    assert set(tables(fitted, plan)) == {"nvidia-b200", "nvidia-gb200"}


@pytest.mark.parametrize("name", sorted(p.stem for p in CONSTANTS.glob("[!_]*.toml")))
def test_every_file_holds_every_constant_itself(name, catalog):
    record = catalog.records["constants"][name]
    differs = "base" in tomllib.loads((CONSTANTS / f"{name}.toml").read_text(encoding="utf-8"))  # a chip that says only what is its own
    kernels = catalog.constants[name] if differs else build_kernels(record, {})
    assert 0 < float(kernels.gemm.bf16.compute_efficiency) <= 1
    for path, q in record.values.items():
        assert q.low is None or q.low <= q.value <= q.high, path
        if path.endswith("efficiency") and "exp_efficiency" not in path:
            assert 0 < q.value <= 1, path


def test_ideal_constants_are_ones_and_zeros(catalog):
    ideal = {k: q.value for k, q in catalog.records["constants"]["ideal"].values.items()}
    kept = ("kv_fill", "chunk_token", "interference", "exp_efficiency", "overlap", "prefill_load")
    for path, value in ideal.items():
        if path.endswith("efficiency") and "exp" not in path:
            assert value == 1, path
        elif path == "system.routing_exponent":  # of the traffic, not of the chip: the same in all files
            assert value == catalog.constants["hbm_gpu"].system.routing_exponent
        elif path.endswith("reach_byte"):  # the ideal holds more of what a benchmark repeats than any chip
            files = catalog.records["constants"].items()
            assert value > max(r.values[path].value for name, r in files if name != "ideal" and path in r.values), path
        elif not path.endswith((*kept, "factor")):
            assert value == 0, path


def test_units_and_keys_of_lines():
    assert [unit_of(x) for x in ("floor_s", "serial_s_per_k", "head_s", "tile_token", "ramp_flop", "efficiency")] == [
        "us",
        "ns",
        "ns",
        "token",
        "FLOP",
        "1",
    ]
    assert key_of("gemm.bf16.a/b.floor_s") == 'gemm.bf16."a/b".floor_s'


@pytest.fixture(scope="module")
def known_steps(plan, catalog):
    """Latencies that the model itself gives with known constants, of two chips and two engines."""
    truth = {("kernel_floor", "nvidia-h100-sxm"): 1.3, ("kernel_floor", "nvidia-b200-sxm"): 0.7, ("moe_floor", "all"): 0.4}
    truth |= {("moe_kernels", "all"): 4.0, ("latent_kernels", "all"): 8.0, ("routing_exponent", "all"): 0.85, ("sequence_s", "all"): 4e-6}
    truth |= {("interference", e): v for e, v in (("vllm", 1.1), ("trtllm", 0.8))} | {("host_s", e): 4e-4 for e in ("vllm", "trtllm")}
    truth |= {("uneven_prompts", e): 1.0 for e in ("vllm", "trtllm")}  # which no run without attention ranks feels
    leaves = [leaf for leaf in plan.system if leaf.what == "tpot_s"]
    steps = []
    for chip in ("nvidia-h100-sxm", "nvidia-b200-sxm"):
        for engine in ("vllm", "trtllm"):
            for model, form in (("llama-3.1-8b", "bf16"), ("gpt-oss-120b", "mxfp4")):
                for batch, osl in ((4.0, 256.0), (32.0, 128.0), (128.0, 512.0)):
                    run = Run(chip, model, "aggregated", form, 1024.0, osl, batch, Cut(tp=2.0), 2.0, engine=engine)
                    steps.append(Step(run, "tpot_s", 1.0, (chip, model, engine, form)))

    def values(chip: str, engine: str) -> dict[str, float]:
        return {leaf.name: truth[leaf.name, owners(chip, engine).get(leaf.per, "all")] for leaf in leaves}

    seconds = predicted(steps, catalog, Chips(catalog, {}), values)
    return truth, leaves, [dataclasses.replace(s, seconds=float(t)) for s, t in zip(steps, seconds, strict=True)]


def test_system_constants_are_found_again(plan, catalog, known_steps):
    truth, leaves, steps = known_steps
    loose = [dataclasses.replace(leaf, sd=10.0) for leaf in leaves]  # two dozen runs against the priors of a thousand
    found = fit_stage(steps, loose, catalog, plan, cross=LEFT_OUT)
    assert np.max(np.abs(found.errors)) < 0.01
    for slot in (("kernel_floor", "nvidia-h100-sxm"), ("interference", "vllm"), ("interference", "trtllm")):  # the rest trade off
        assert found.values[slot].value == pytest.approx(truth[slot], rel=0.2), slot
    assert found.values["kernel_floor", "nvidia-b200-sxm"].value < found.values["kernel_floor", "nvidia-h100-sxm"].value
    assert set(found.left_out) == {"chip", "model", "engine"}
    assert np.median(np.abs(found.left_out["chip"])) > np.median(np.abs(found.errors))


def test_lines_of_system_constants_go_to_chips_engines_and_means(plan, catalog, known_steps):
    _, leaves, steps = known_steps
    fits = {"tpot_s": fit_stage(steps, leaves, catalog, plan)}
    some = dataclasses.replace(plan, system=tuple(leaves))
    made = system_lines(fits, some, catalog)
    assert "system.kernel_floor" in made["nvidia-h100"] and "system.kernel_floor" not in made["nvidia-l40s"]
    assert set(made["_engines"]) == {f"{e}.{leaf}" for e in ("vllm", "trtllm") for leaf in ("interference", "host_s")}
    borrowed = made["nvidia-gb200"]["system.kernel_floor"]
    assert "as nvidia-b200" in borrowed and "estimate" in borrowed
    assert all("mean over the fitted engines" in made[f]["system.host_s"] for f in plan.engine_files)


def test_a_shared_constant_counts_once(plan):
    residual = Residual(50, 0.05, 0.1, 0.06, 0.12)
    fit = next(f for f in plan.fits if f.path == "gemm.fp8")
    pair = frozenset(("nvidia-h100", "nvidia-b200"))
    free = (pair, pair, frozenset(["nvidia-h100"]), pair | {"amd-mi355x"}, frozenset(["nvidia-l40s"]))
    done = Fitted(fit, {}, dict.fromkeys(sorted(pair), residual), free)
    assert constants_by_kind([done], plan) == {"GEMM, NVIDIA": 4, "GEMM, MI355X": 1}  # the L40S stands apart
    assert left_out([done]) == {"GEMM, NVIDIA": {"shape": pytest.approx(0.06), "shape_p90": pytest.approx(0.12)}}
    assert constants_by_chip([done], plan) == {
        "amd-mi355x": {"own": 0, "shared": 1},
        "nvidia-b200": {"own": 0, "shared": 3},
        "nvidia-h100": {"own": 1, "shared": 3},
        "nvidia-l40s": {"own": 1, "shared": 0},
    }


def test_kernels_of_one_engine_stand_apart_once(plan):
    """A chip with rows of vLLM alone lends its own constants from them: the rows count with vLLM's, and once."""
    plain, named = (next(f for f in plan.fits if f.path == path) for path in ("decode", "decode.vllm"))
    ours, theirs = Residual(50, 0.05, 0.1, other=0.1, other_p90=0.2), Residual(50, 0.05, 0.1, other=0.3, other_p90=0.6)
    results = [
        Fitted(plain, {}, {"nvidia-a100": theirs, "nvidia-b200": ours}, ran={"nvidia-a100": ("vllm",), "nvidia-b200": ("trtllm",)}),
        Fitted(named, {}, {"nvidia-a100": theirs, "nvidia-b200": ours}, ran={"nvidia-a100": ("vllm",), "nvidia-b200": ("vllm",)}),
    ]
    assert left_out(results) == {
        "decode attention": {"other": pytest.approx(0.1), "other_p90": pytest.approx(0.2)},
        "decode attention, vLLM": {"other": pytest.approx(0.2), "other_p90": pytest.approx(0.4)},
    }


def cell(part: str, chip: str, plan, *effects: str) -> Cell:
    """A cell with one leaf, fitted with some effects."""
    return cell_of(Fit(part, (Leaf("floor_s", 1e-6, effects=effects, sd=1.0),), (("trtllm",),)), 0, chip, plan)


def test_formats_and_chips_share_effects(plan):
    """Two formats on H100 and on two chips of Blackwell: a centre a format, an offset for each group, generation and chip."""
    some = dataclasses.replace(plan, scatter={"kind@generation": 0.3, "kind@chip": 0.4})
    effects = ("format@all", "kind@generation", "kind@chip")
    chips = ("nvidia-h100", "nvidia-b200", "nvidia-gb200")
    cells = [cell(part, chip, some, *effects) for part in ("gemm.bf16", "gemm.fp8") for chip in chips]
    slots = slots_of(["floor_s"], cells, some)
    reach = {frozenset(cells[i].chip for i in slot.cells): slot.sd for slot in slots}
    assert len(slots) == 2 + 2 + 2  # two centres; Hopper, Blackwell; the two chips of Blackwell
    assert reach[frozenset(["nvidia-h100"])] == 0.3 and reach[frozenset(["nvidia-b200"])] == 0.4
    assert reach[frozenset(["nvidia-b200", "nvidia-gb200"])] == 0.3
    matrix = maps_of(slots, ["floor_s"], cells)["floor_s"]
    assert np.linalg.matrix_rank(matrix) == 2 + 2  # both formats at one chip, and how two chips differ from it
    assert np.array_equal(matrix.sum(axis=1), [2, 3, 3, 2, 3, 3])


def test_a_chip_that_a_user_adds_has_offsets_of_its_own(plan):
    """Also where no other chip of its generation has rows; a shipped chip alone in its generation has none beside those of that."""
    some = dataclasses.replace(plan, scatter={"kind@chip": 0.3})
    for new in (frozenset(), frozenset(["nvidia-h100"])):
        own = dataclasses.replace(some, new=new)
        cells = [cell("gemm.bf16", f"nvidia-{chip}", own, "kind@all", "kind@chip") for chip in ("h100", "b200", "gb200")]
        reach = [sorted(cells[i].chip for i in slot.cells) for slot in slots_of(["floor_s"], cells, own)]
        assert (["nvidia-h100"] in reach) == bool(new) and ["nvidia-b200"] in reach and ["nvidia-gb200"] in reach


def test_no_chip_has_more_than_thirty_constants_of_its_own(plan, catalog):
    """Numbers that the rows of one chip alone move: of its operators, and of its system where it has serving runs."""
    samples = samples_of(data_dir("hw_catalog") / "measurements", catalog, plan)
    own = Counter(next(iter(chips)) for kind in joints(samples, plan) for chips in free_of(kind, plan) if len(chips) == 1)
    per_chip = [leaf.name for leaf in plan.system if leaf.per == "chip"]
    for file in own:
        values = catalog.records["constants"][file].values if file in catalog.records["constants"] else {}
        own[file] += sum(values[f"system.{name}"].kind == "fit" for name in per_chip if values)
    assert set(own) >= set(plan.pools["hbm_gpu"]) and max(own.values()) <= 30, own
    assert own["nvidia-a100"] >= 10  # it alone was measured with some kernels: a count that finds none counts nothing


def test_an_effect_of_one_group_or_generation_moves_no_other_chip(plan):
    some = dataclasses.replace(plan, scatter={"fit@modern": 0.3, "fit@hopper": 0.4})
    chips = ("nvidia-a100", "nvidia-h100", "nvidia-b200")
    cells = [cell("gemm.bf16", chip, some, "kind@all", "fit@modern", "fit@hopper") for chip in chips]
    matrix = maps_of(slots_of(["floor_s"], cells, some), ["floor_s"], cells)["floor_s"]
    assert np.array_equal(matrix, [[1, 0, 0], [1, 1, 1], [1, 1, 0]])


def test_a_chip_without_rows_takes_the_centre_or_its_peers(plan):
    chips = ("nvidia-a100", "nvidia-b200", "nvidia-gb200", "nvidia-h100")
    some = dataclasses.replace(plan, scatter={"kind@chip": 0.3, "fit@chip": 0.3})
    for effects in (("fit@all", "kind@chip"), ("fit@group", "fit@chip")):
        cells = [cell("gemm.bf16", chip, some, *effects) for chip in chips]
        matrix = maps_of(slots_of(["floor_s"], cells, some), ["floor_s"], cells)["floor_s"]
        seen = np.unique(matrix[:3].nonzero()[1])
        got = unseen_row("floor_s", matrix, 3, cells, chips[:3])
        if effects[0] == "fit@all":
            assert len(seen) == 3 and np.array_equal(got[seen], [1, 0, 0])  # the centre alone: those of the two of Blackwell rest
        else:
            assert np.array_equal(got, matrix[1:3].mean(axis=0))  # the mean over its group


def test_a_later_chip_takes_what_its_group_shares(plan):
    """One H100 and two chips of Blackwell, whose offset counts once, not twice."""
    some = dataclasses.replace(plan, scatter={"kind@generation": 0.3})
    cells = [cell("gemm.bf16", f"nvidia-{chip}", some, "fit@all", "kind@generation") for chip in ("h100", "b200", "gb200")]
    matrix = maps_of(slots_of(["floor_s"], cells, some), ["floor_s"], cells)["floor_s"]
    assert np.array_equal(matrix, [[1, 1, 0], [1, 0, 1], [1, 0, 1]])
    assert np.array_equal(centre_row(matrix, [0, 1, 2]), [1, 0, 0])
    assert np.array_equal(centre_row(matrix, [1, 2]), [1, 0, 1])  # both of Blackwell: what a third one takes


def test_effects_are_checked(tmp_path):
    (tmp_path / "constants").mkdir()
    text = (CONSTANTS / "_fit.toml").read_text(encoding="utf-8")
    path = tmp_path / "constants" / "_fit.toml"
    path.write_text(text.replace('"fit@chip"]', '"fit@planet"]', 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"effects — found 'fit@planet', allowed .*fit@chip"):
        read_plan(tmp_path)


def test_chips_share_constants_only_where_they_ran_the_same_kernel(plan, catalog):
    samples = samples_of(data_dir("hw_catalog") / "measurements", catalog, plan)
    (done,) = fit_all(samples, plan, True, parts=["moe.mxfp4"])
    floor = {chip: leaves["floor_s"].value for chip, leaves in done.constants.items()}  # 8-bit against 16-bit activations
    assert floor["nvidia-gb200"] == pytest.approx(floor["nvidia-b200"], rel=0.1) and floor["nvidia-h100"] > 2 * floor["nvidia-b200"]
    assert math.isnan(done.residuals["nvidia-h100"].other) and math.isnan(done.residuals["nvidia-b200"].other)
    assert done.residuals["nvidia-b200"].same < 0.15


@pytest.fixture(scope="module")
def own_rows(tmp_path_factory):
    """Two dozen rows of a chip that nobody named: a B200 whose FP8 GEMMs take 1.4 times as long, described by a line of chip_peaks.csv."""
    rows, peaks = read_folder(data_dir("hw_catalog") / "measurements")
    mine = [r for r in rows["ops_gemm"] if r["chip"].startswith("B200") and r["precision_weights"] == "fp8" and "trtllm" in r["software"]]
    chosen = [{**r, "chip": "own-chip", "value": str(1.4 * float(r["value"]))} for r in mine[:: len(mine) // 24]]
    sheet = {**next(p for name, p in peaks.items() if name.startswith("B200")), "chip": "own-chip"}
    folder = tmp_path_factory.mktemp("own")
    for name, each in (("ops_gemm", chosen), ("chip_peaks", [sheet])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, list(each[0]))
            out.writeheader()
            out.writerows(each)
    return folder


def test_a_handful_of_rows_calibrates_an_own_chip(own_rows, catalog, tmp_path):
    results, plan, found, curves = calibrate_new(own_rows, catalog)
    assert [new.file for new in found] == ["own-chip"] and plan.group_of("own-chip") == plan.group_of("nvidia-b200")
    curve = dict(curves["own-chip"]["gemm.fp8"])
    assert list(curve) == [0, 3, 8]
    assert curve[0] > 0.2 and curve[3] < 0.7 * curve[0] and curve[8] < 0.7 * curve[0]
    written = write_newcomers(results, plan, found, tmp_path)
    assert [p.name for p in written] == ["own-chip.toml"]
    overlay = load_catalog(tmp_path)
    _, peaks = read_folder(own_rows)
    on = Chips(overlay, peaks).find("own-chip")
    assert on.constants.id == "own-chip"
    fitted = results[0].constants["own-chip"]["floor_s"].value
    assert float(on.chip.kernels.gemm.fp8.floor_s) == pytest.approx(fitted, rel=1e-3)
    assert float(on.chip.kernels.gemm.bf16.floor_s) == float(catalog.constants["nvidia-b200"].gemm.bf16.floor_s)  # not measured: borrowed
    assert results[0].residuals["own-chip"].median < 0.1


@pytest.fixture(scope="module")
def committed():
    return json.loads((Path(__file__).parent.parent / "reports" / "validation" / "cross_validation.json").read_text(encoding="utf-8"))


def same_errors(found, committed, kinds):
    for kind in kinds:
        assert set(found[kind]) == set(committed[kind]), kind
        for name, value in found[kind].items():
            assert value == pytest.approx(committed[kind][name], rel=0.03, abs=0.002), (kind, name)


def test_the_committed_cross_validation_is_what_the_rows_give_for_one_kind(plan, catalog, committed):
    samples = samples_of(data_dir("hw_catalog") / "measurements", catalog, plan)
    found = left_out(fit_all(samples, plan, True, parts=["dispatch", "combine"]))
    same_errors(found, committed["left_out"], ["expert all-to-all"])


@pytest.mark.long
def test_the_committed_cross_validation_is_what_the_rows_give(committed):
    found = cross_validate()
    assert found["constants_by_chip"] == committed["constants_by_chip"]
    same_errors(found["left_out"], committed["left_out"], committed["left_out"])
    for kind, curve in found["rows_of_a_new_chip"].items():
        assert np.allclose(curve, committed["rows_of_a_new_chip"][kind], rtol=0.05, atol=0.003), kind


def test_a_later_chip_takes_the_kernels_of_recent_generations(catalog):
    """Centre of Hopper and Blackwell where they were measured, spread of all; exchanges keep the centre of all; the rest is Ampere's."""
    a100, h100, b200, gb200, pool = (catalog.records["constants"][f"nvidia{x}"].values for x in ("-a100", "-h100", "-b200", "-gb200", ""))
    recent = [float(c["prefill.floor_s"].value) for c in (h100, b200, gb200)]
    assert float(pool["prefill.floor_s"].value) == pytest.approx(np.exp(np.mean(np.log(recent))), rel=1e-3)
    assert float(pool["prefill.floor_s"].low) <= float(a100["prefill.floor_s"].low) * (1 + 1e-6)
    every = [float(c["all_reduce.one_shot_s"].value) for c in (a100, h100, b200, gb200)]
    assert float(pool["all_reduce.one_shot_s"].value) == pytest.approx(np.exp(np.mean(np.log(every))), rel=1e-3)
    assert float(pool["gemm.int4.floor_s"].value) == pytest.approx(float(a100["gemm.int4.floor_s"].value), rel=1e-3)


def test_order_of_chips_counts_pairs_at_one_load(plan):
    def run(chip: str, batch: float = 8.0) -> Run:
        return Run(chip, "llama-3.1-8b", "aggregated", "bf16", 1024.0, 1024.0, batch, Cut(), 1.0)

    seconds = {("a", 8.0): 1.0, ("b", 8.0): 2.0, ("c", 8.0): 4.0, ("c", 9.0): 0.5}
    steps = tuple(Step(run(*at), "tpot_s", t, (at[0], "", "", "")) for at, t in seconds.items())
    swapped = np.array([1.5, 0.0, 0.0, 0.0])  # a is predicted slower than b, still faster than c
    fit = SystemFit({}, steps, np.zeros(4), {"chip": swapped})
    assert order_of_chips(fit) == {"fit": {"tau": 1.0, "n": 3}, "chip": {"tau": pytest.approx(1 / 3), "n": 3}}
