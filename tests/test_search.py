"""Is the study a ledger: sealed rounds, the same chips for the same seed, nothing lost or repeated by a kill, nothing foreign accepted?"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from dse.errors import DseError, InputError
from dse.search import optuna_study as ledgers
from dse.search.shards import Plan, Scores, canonical, replay, run_shard
from dse.space import Space, Variable

SPACE = Space(
    "toy",
    (
        Variable("node", kind="choice", choices=("n7", "n5", "n3"), allowed=("n5", "n3")),
        Variable("dies", kind="int", low=1, high=8, default=2),
        Variable("bandwidth", low=1e9, high=1e12, log=True),
        Variable("share", low=0.2, high=0.8),
        Variable("voltage", low=0.75, high=0.75),
        Variable("cooling", kind="choice", choices=("air", "liquid"), allowed=("liquid",)),
    ),
)
BEST = {"node": "n3", "dies": 5, "bandwidth": 1e11, "share": 0.35}
PLAN = Plan(label="toy", space=SPACE, cells=2, chips=80, sampler="nsga2", explore=True, asked=4, bred=12, seed=3)
IDENTITY = {"study_sha256": "a", "seed": 3}


def toy(values):
    """Two cells with a known optimum; chips of more than 6 dies are infeasible."""
    n3 = (values["node"] == 2) * 1.0
    cost = 2 - n3 + (values["dies"] - 5) ** 2 / 10 + np.log10(values["bandwidth"] / 1e11) ** 2 + 10 * (values["share"] - 0.35) ** 2
    cost = np.where(values["dies"] > 6, np.inf, cost)
    fast = np.where(np.isfinite(cost), 1 / values["bandwidth"], np.inf)
    feasible = np.where(np.isfinite(cost), 0.0, 1.0)
    return Scores(np.stack([cost, cost * (1 + values["share"])], axis=1), np.stack([cost, fast], axis=1), {"dies": feasible}, 7 * len(cost))


def ledger(path, plan=PLAN, **identity):
    return ledgers.open_ledger(ledgers.open_storage(path / "study.journal"), "toy/toy", plan.space, {**IDENTITY, **identity})


def search(path, plan=PLAN, evaluate=toy):
    book = ledger(path, plan)
    ticks = []
    archive = run_shard(plan, book, evaluate, lambda *t: ticks.append(t))
    return archive, book, ticks


def written(book):
    """What a reader of the journal sees of each trial, in order."""
    return [
        (t.user_attrs["round"], t.user_attrs["origin"], t.user_attrs["decisions"], t.params, t.values, t.user_attrs["front"], t.constraints)
        for t in book.study.get_trials(deepcopy=False)
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished search: archive, what was written, ticks."""
    archive, book, ticks = search(tmp_path_factory.mktemp("undisturbed"))
    return archive, written(book), ticks, dict(book.study.user_attrs)


# --- what is recorded ------------------------------------------------------------------------------------------------------


def test_a_round_is_recorded_whole_and_the_budget_is_kept(undisturbed):
    _, trials, ticks, attributes = undisturbed
    assert (PLAN.block, PLAN.rounds) == (16, 5)
    assert attributes["sealed_rounds"] == 5
    assert attributes["chips_screened"] == 80
    assert attributes["evaluations"] == 7 * 80
    assert ticks == [(16, 7 * 16)] * 5
    for number in range(5):
        asked = [t for t in trials if t[0] == number and t[1] == "asked"]
        assert len(asked) == 4
    assert 0 < sum(t[1] == "bred" for t in trials) < 5 * 12  # only what entered the archive
    assert trials[0][2] == SPACE.named(SPACE.defaults())  # the default design is tried first


def test_trials_say_what_optuna_users_expect(undisturbed):
    _, trials, _, _ = undisturbed
    for _, _, decisions, params, values, front, constraints in trials:
        assert set(params) == {"node", "dies", "bandwidth", "share"}  # what is fixed is no parameter
        assert params == {k: decisions[k] for k in params}
        assert decisions["voltage"] == 0.75
        assert decisions["cooling"] == "liquid"
        infeasible = decisions["dies"] > 6
        assert (constraints["dies"] > 0) == infeasible
        assert all(np.isfinite(values))
        assert (values[0] == ledgers.WORST) == infeasible
        assert front == [None, None] if infeasible else front[0] == values[0]
    json.dumps(trials, allow_nan=False)


def test_the_archive_comes_back_from_the_ledger_to_the_last_bit(tmp_path, undisturbed):
    archive, book, _ = search(tmp_path)
    np.testing.assert_array_equal(archive.costs, undisturbed[0].costs)
    again = replay(PLAN, ledger(tmp_path))
    for name in ("points", "costs", "tpot"):
        np.testing.assert_array_equal(getattr(again, name), getattr(archive, name))
    assert written(book) == undisturbed[1]
    _, same, ticks = search(tmp_path)  # a finished search is not searched again
    assert written(same) == undisturbed[1]
    assert ticks == [(16, 0)] * 5


def test_decisions_are_their_own_reading():
    cube = np.random.default_rng(0).random((200, SPACE.dimension))
    named, values, points = canonical(SPACE, cube)
    again, same, fixed = canonical(SPACE, points)
    assert json.loads(json.dumps(again)) == again
    for name in SPACE.names:
        np.testing.assert_allclose(same[name], values[name], rtol=1e-12)
    np.testing.assert_allclose(fixed, points, atol=1e-12)
    assert named[0].keys() == set(SPACE.names)


def test_a_longer_search_finds_the_known_optimum(tmp_path):
    archive, _, _ = search(tmp_path, replace(PLAN, chips=640))
    best = SPACE.named(SPACE.decode(archive.points), int(archive.costs[:, 0].argmin()))
    assert archive.costs[:, 0].min() < 1.02
    assert (best["node"], best["dies"]) == (BEST["node"], BEST["dies"])
    assert best["bandwidth"] == pytest.approx(BEST["bandwidth"], rel=0.5)
    assert best["share"] == pytest.approx(BEST["share"], abs=0.05)


# --- seeds and samplers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "tpe", "random", "qmc", "QMCSampler"])
def test_the_same_seed_asks_for_the_same_chips_by_every_sampler(tmp_path, sampler):
    plan = replace(PLAN, sampler=sampler, chips=48)
    found = {}
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        _, book, _ = search(tmp_path / name, replace(plan, seed=seed))
        found[name] = [t[2] for t in written(book)]
    assert found["one"] == found["same"]
    assert found["one"] != found["other"]
    assert len({json.dumps(d) for d in found["one"]}) > 12  # a later round does not repeat the first


def test_labels_and_rounds_draw_apart():
    draws = [ledgers.seed_of(*k).random(3).tolist() for k in ((1, "sram", 0), (1, "sram", 1), (1, "hbm_gpu", 0), (2, "sram", 0))]
    assert len({tuple(d) for d in draws}) == 4
    assert ledgers.seed_of(1, "sram", 0).random(3).tolist() == draws[0]


def test_without_explore_all_chips_are_asked(tmp_path):
    plan = replace(PLAN, explore=False, chips=12)
    _, book, ticks = search(tmp_path, plan)
    assert len(ticks) == 3
    assert [t[1] for t in written(book)] == ["asked"] * 12


@pytest.mark.parametrize("sampler, package", [("cmaes", "cmaes"), ("CmaEsSampler", "cmaes"), ("gp", "torch")])
def test_a_sampler_whose_package_is_missing_is_refused_before_any_chip_is_tried(tmp_path, sampler, package):
    def nothing(_):
        raise AssertionError

    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(InputError, match=rf"search\.sampler — found '{sampler}', which needs the package {package}"):
        search(tmp_path, replace(PLAN, sampler=sampler), nothing)


@pytest.mark.parametrize("sampler, said", [("nsga4", "did you mean"), ("BruteForceSampler", "cannot search this space")])
def test_a_sampler_that_is_unknown_or_cannot_work_is_refused(tmp_path, sampler, said):
    with pytest.raises(InputError, match=rf"search\.sampler — found '{sampler}'.*{said}"):
        search(tmp_path, replace(PLAN, sampler=sampler))


def test_cma_es_learns_from_round_to_round(tmp_path):
    """It takes one objective and keeps its state on trials, so its own chips near the optimum from generation to generation."""
    pytest.importorskip("cmaes")
    space = Space("toy", tuple(v for v in SPACE.variables if v.kind == "real"))

    def bowl(values):
        return toy({"node": np.full(len(values["share"]), 2), "dies": np.full(len(values["share"]), 5), **values})

    plan = replace(PLAN, space=space, sampler="cmaes", explore=False, asked=6, chips=180)
    _, book, _ = search(tmp_path, plan, bowl)
    costs = [t[4][0] for t in written(book)]
    assert np.median(costs[-30:]) - 1 < (np.median(costs[:30]) - 1) / 5


def test_one_and_three_objectives_are_recorded_as_such(tmp_path):
    def three(values):
        found = toy(values)
        return replace(found, values=np.concatenate([found.values, found.values[:, :1] * 2], axis=1))

    def one(values):
        found = toy(values)
        return replace(found, values=found.values[:, :1])

    for count, evaluate in ((3, three), (1, one)):
        storage = ledgers.open_storage(tmp_path / f"{count}.journal")
        book = ledgers.open_ledger(storage, "toy/toy", SPACE, IDENTITY, objectives=count)
        archive = run_shard(replace(PLAN, chips=48), book, evaluate, lambda *_: None)
        assert len(book.study.directions) == count
        assert {len(t.values) for t in book.study.get_trials(deepcopy=False)} == {count}
        np.testing.assert_array_equal(replay(PLAN, book).costs, archive.costs)


# --- kills and foreign journals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written_of_round", [0, 3, 99])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(tmp_path, undisturbed, monkeypatch, written_of_round):
    """Killed in the third round: before any trial, after three, and after all but the seal; the last line is torn each time."""
    inner = ledgers.record

    def killed(book, number, found, generation, counts):
        if number == 2:
            book.study.add_trials([ledgers.frozen(book, e, number, generation) for e in found[:written_of_round]])
            raise KeyboardInterrupt
        inner(book, number, found, generation, counts)

    monkeypatch.setattr(ledgers, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path)
    monkeypatch.undo()
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "torn')
    assert ledgers.sealed_rounds(ledger(tmp_path)) == 2
    archive, book, ticks = search(tmp_path)
    assert ticks == [(16, 0)] * 2 + [(16, 7 * 16)] * 3
    assert written(book) == undisturbed[1]
    np.testing.assert_array_equal(archive.costs, undisturbed[0].costs)
    assert book.study.user_attrs["evaluations"] == 7 * 80
    assert book.study.user_attrs["chips_screened"] == 80


def test_a_torn_last_line_is_cut_and_a_whole_journal_stays(tmp_path):
    path = tmp_path / "study.journal"
    ledgers.trim_journal(path)
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c": ')
    ledgers.trim_journal(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    ledgers.trim_journal(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    path.write_bytes(b"no end")
    ledgers.trim_journal(path)
    assert path.read_bytes() == b""


def test_a_journal_that_is_none_says_what_to_do(tmp_path):
    for text in ("this is\nno journal\n", "one line\n", '{"op_code": 0}\n'):
        (tmp_path / "study.journal").write_text(text, encoding="utf-8")
        with pytest.raises(DseError, match=r"storage — cannot be read.*--force"):
            ledger(tmp_path)
    with pytest.raises(DseError, match="storage"):
        ledgers.open_storage("nosuch://place")


def test_the_journal_of_another_study_is_refused(tmp_path):
    search(tmp_path, replace(PLAN, chips=16))
    with pytest.raises(InputError, match=r"toy/toy: seed — the storage holds a study with 3, now 4; use --force or another --out"):
        ledger(tmp_path, seed=4)
    with pytest.raises(InputError, match="study_sha256"):
        ledger(tmp_path, study_sha256="b")
    ledger(tmp_path)


def test_a_database_takes_the_place_of_the_journal(tmp_path, undisturbed):
    book = ledgers.open_ledger(ledgers.open_storage(f"sqlite:///{tmp_path}/s.db"), "toy/toy", SPACE, IDENTITY)
    run_shard(replace(PLAN, chips=32), book, toy, lambda *_: None)
    assert written(book) == [t for t in undisturbed[1] if t[0] < 2]


def test_a_shard_is_taken_by_one_worker(tmp_path):
    one, other = ledger(tmp_path), ledger(tmp_path)
    assert ledgers.claimed(one, 0.0)
    assert not ledgers.claimed(other, 0.0)


def test_a_proxy_storage_needs_its_packages_and_an_address():
    with pytest.raises(InputError, match=r"allowed grpc://HOST:PORT"):
        ledgers.open_storage("grpc://somewhere")
    if find_spec("grpc") is None:
        with pytest.raises(InputError, match="grpcio and protobuf"):
            ledgers.open_storage("grpc://localhost:13000")


SERVER = """
import sys
from optuna.storages import JournalStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend
run_grpc_proxy_server(JournalStorage(JournalFileBackend(sys.argv[1])), host="localhost", port=int(sys.argv[2]))
"""


@pytest.mark.skipif(find_spec("grpc") is None, reason="grpcio is not installed")
def test_a_search_through_the_grpc_proxy_finds_what_a_journal_file_does(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER, str(tmp_path / "served.journal"), str(port)])
    try:
        client = ledgers.open_storage(f"grpc://localhost:{port}")
        client.wait_server_ready(timeout=60)
        book = ledgers.open_ledger(client, "toy", SPACE, IDENTITY)
        run_shard(PLAN, book, toy, lambda *_: None)
        _, direct, _ = search(tmp_path)
        assert written(book) == written(direct)
        client.close()
    finally:
        server.terminate()
        server.wait(timeout=30)
