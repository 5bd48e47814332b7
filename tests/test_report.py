"""Does the report say what the Dataset holds, the same way every time, and does every export agree with it?"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dse import glossary
from dse.errors import InputError
from dse.report import export, fronts, info, tables, terminal, write_report
from dse.report import view as V
from dse.report import words as W

spec = importlib.util.spec_from_file_location("fake_result", Path(__file__).with_name("fake_result.py"))
assert spec and spec.loader
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)


@pytest.fixture(scope="module")
def ds():
    return fake.fake_dataset(each=3)


@pytest.fixture(scope="module")
def head(ds):
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    return v, V.limit_index(v, limit_s)


@pytest.fixture(scope="module")
def written(ds, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return write_report(ds, out)


def set_cell(ds, name, index, value):
    """A copy of the Dataset with one cell changed; ``index`` selects by label."""
    copy = ds.copy(deep=True)
    copy[name].loc[index] = value
    return copy


# --- what is computed ------------------------------------------------------------------------------------------------


def test_bands_hold_every_bound_that_a_speed_is_subject_to(ds, head):
    """A design that is fast enough for a limit cannot cost less than that limit's bound, on whichever limit of the front it stands."""
    v, _ = head
    family = V.families(ds)[0]
    cells = V.front(v, v.candidate & (v.family == family), V.COST)
    least = min(float(v.grid(V.COST)[c]) for c in cells)
    middle = float(np.median([1 / float(v.grid(V.SPEED)[c]) for c in cells]))
    slow, fast = least / 2, least * 0.9
    rows = [(max(float(x) for x in v.limits_s), slow), (middle, fast)]
    proved = ds.copy()
    proved.attrs["certificates"] = json.dumps([{"family": family, "tpot_limit_s": t, "lower_bound": bound} for t, bound in rows])
    (panel,) = fronts.fronts(proved, V.COST, v.case.scenario, only=v.case, name="bands-tried").panels
    (band,) = panel.bands
    assert len(band.x) == len(cells)
    for x, low, high in zip(band.x, band.low, band.high, strict=True):
        assert low == pytest.approx(fast if x * middle >= 1 else slow) and low <= high
    assert len(set(band.low)) == 2


def test_winner_is_the_cheapest_of_all_hypothetical_cells(ds, head):
    v, limit = head
    table = ds.sel(model=v.case.model, workload=v.case.workload, scenario=v.case.scenario).isel(tpot_limit=limit)
    keep = (table.status == "hypothetical") & (table.below_4_bit == 0) & (table.feasible == 1)
    cost = table[V.COST].where(keep)
    family, design, least = V.winners(v, limit)[0]
    assert least == float(cost.min())
    assert (str(table.family[design].values), int(np.nanargmin(cost.values))) == (family, design)


def test_below_4_bit_and_existing_chips_never_win(ds, head):
    v, limit = head
    where = {"model": v.case.model, "workload": v.case.workload, "scenario": v.case.scenario, "tpot_limit": v.limits_s[limit]}
    best = V.winners(v, limit)[0]
    for design, below in ((str(v.ids[best[1]]), 1.0), ("nvidia-b200-sxm", 0.0), ("human-brain", 0.0)):
        index = {**where, "design": design}
        cheap = set_cell(set_cell(set_cell(ds, V.COST, index, 1e-6), "below_4_bit", index, below), "feasible", index, 1.0)
        w = V.view(cheap, v.case)
        assert str(w.ids[V.winners(w, limit)[0][1]]) != design
        if below:
            assert "below 4 bit" in W.below_sentence(w, limit)


def test_without_hypothetical_designs_the_chips_that_exist_compete(ds):
    real = ds.isel(design=np.flatnonzero(ds.status.values != "hypothetical"))
    case, limit_s = V.headline(real)
    v = V.view(real, case)
    assert set(v.status[v.candidate]) == {"existing"}
    assert V.winners(v, V.limit_index(v, limit_s))
    assert {s.kind for s in fronts.fronts(real, V.COST, case.scenario).panels[0].series} <= {"real", "claim", "unnamed", "measured"}


def test_regimes_cover_every_limit_that_is_met_once(head):
    v, _ = head
    runs = V.regimes(v)
    assert all(a.family != b.family and a.fast_token_per_s < b.slow_token_per_s for a, b in itertools.pairwise(runs))
    for t in range(len(v.limits_s)):
        ranking = V.winners(v, t)
        speed = 1 / v.limits_s[t]
        inside = [r.family for r in runs if r.slow_token_per_s <= speed <= r.fast_token_per_s]
        assert inside == ([ranking[0][0]] if ranking else [])


def test_infeasible_everywhere_is_said_not_raised(ds):
    none = ds.copy(deep=True)
    none["feasible"][:] = 0
    case, _ = V.headline(none)
    v = V.view(none, case)
    assert "No design" in W.regimes_sentence(v)
    assert "nothing is feasible" in W.winner_sentence(none, v, 0)
    assert "nothing is feasible" in info.bound_strip(none, case).caption
    assert terminal.summary(none)
    assert export.designs_table(none) == []


def test_weights_below_4_bit_may_be_a_property_of_the_design(ds, head):
    """As in the studies, where such designs have an id of their own."""
    v, limit = head
    best = str(v.ids[V.winners(v, limit)[0][1]])
    flagged = ds.assign(below_4_bit=("design", (ds["design"].values == best).astype(float)))
    w = V.view(flagged, v.case)
    assert w.below_4_bit[w.ids == best].any() and not w.below_4_bit[w.ids != best].any()
    assert best not in {str(w.ids[d]) for t in range(len(w.limits_s)) for _, d, _ in V.winners(w, t)}


def test_assumptions_of_another_owner_do_not_count(ds, head):
    v, limit = head
    family = V.winners(v, limit)[0][0]
    other = V.Case(v.case.model, v.case.workload, "street-2026")
    assert "prices owner-2026: utilisation" in V.effects(ds, v.case, family)
    assert "prices owner-2026: utilisation" not in V.effects(ds, other, family)


def test_spread_is_first_order_and_contains_the_winner(ds, head):
    v, limit = head
    family = V.winners(v, limit)[0][0]
    slopes, changes = V.elasticities(ds, v.case, family), V.effects(ds, v.case, family)
    slope = slopes["utilisation"]
    assert changes["prices owner-2026: utilisation"][0] == pytest.approx((0.35 / 0.6) ** slope - 1)
    low, high, count = V.spread(ds, v.case, family)
    assert low < 1 < high and count == len(changes) == 4  # one assumption has no elasticity
    single = max(abs(np.log1p(x)) for pair in changes.values() for x in pair)
    assert np.log(high) < 4 * single


def with_own_assumptions(ds, family):
    """The Dataset with two values that belong to ``family`` alone, one of another family, and one that needs a 4-bit format."""
    row = {"unit": "1", "kind": "assumption", "source": "s", "note": ""}
    moves = {"moves": {"utilisation": -1}}
    rows = [
        {
            "name": f"constants {family}: compute efficiency of GEMM",
            "value": 0.8,
            "low": 0.6,
            "high": 0.9,
            "family": family,
            **moves,
            **row,
        },
        {"name": f"family {family}: layer", "value": 1.0, "low": 0.5, "high": 2.0, "family": family, **moves, **row},
        {
            "name": "constants hbm_gpu: compute efficiency of GEMM",
            "value": 0.7,
            "low": 0.5,
            "high": 0.9,
            "family": "hbm_gpu",
            **moves,
            **row,
        },
        {"name": f"family {family}: fp4_rate", "value": 2.0, "low": 1.0, "high": 2.0, "family": family, "format": "fp4", **moves, **row},
    ]
    rows[2]["kind"] = "fit"
    other = ds.copy()
    other.attrs = {**ds.attrs, "assumptions": json.dumps([*json.loads(ds.attrs["assumptions"]), *rows])}
    return other


def test_own_assumptions_leave_out_shared_and_foreign_ones(ds, head):
    v, limit = head
    family = next(f for f, _, _ in V.winners(v, limit) if f != "hbm_gpu")
    more = with_own_assumptions(ds, family)
    own = V.effects(more, v.case, family, own=True)
    wide = "fp4" in V._winner_format(more, v.case, family)
    assert set(own) == {f"constants {family}: compute efficiency of GEMM", f"family {family}: layer"} | (
        {f"family {family}: fp4_rate"} if wide else set()
    )
    slope = -V.elasticities(more, v.case, family)["utilisation"]
    assert own[f"family {family}: layer"] == pytest.approx((0.5**slope - 1, 2.0**slope - 1))
    factor, count = V.worst(more, v.case, family)
    assert count == len(own) and factor == pytest.approx(np.prod([1 + max(*pair, 0) for pair in own.values()]))
    assert 1 < V.spread(more, v.case, family, own=True)[1] <= factor
    assert V.evidence(more) == V.Evidence(("hbm_gpu",), (family,))


def test_the_headline_says_what_is_assumed_and_what_survives(ds, head):
    v, limit = head
    family, _, cost = V.winners(v, limit)[0]
    more = with_own_assumptions(ds, family)
    assert "only HBM GPU carries" in W.evidence_sentence(more, v, limit) or family == "hbm_gpu"
    said = W.survival(more, v, limit)
    assert W.number(cost * V.worst(more, v.case, family)[0]) in said[1]
    assert W.survival(ds, v, limit) == ()
    assert "no lead over X" in W._kept("X", 2.0, 1.0, 3.0)
    assert "50" in W._kept("X", 4.0, 1.0, 2.0)  # half of the lead, in logarithms


def test_a_proposed_chip_is_named_and_does_not_compete(ds, head):
    v, limit = head
    design = int(V.winners(v, limit)[0][1])
    status = ds["status"].values.astype(object)
    status[design] = "proposed"
    changed = ds.assign(status=("design", status))
    w = V.view(changed, v.case)
    assert design not in {d for _, d, _ in V.winners(w, limit)}
    assert fronts._label_order(w, V.COST, limit)[0] == design


def test_limits_that_one_design_serves_alike_share_a_column(ds, head):
    v, _ = head
    order = [int(t) for t in np.argsort(-v.limits_s) if V.winners(v, int(t))]
    runs = tables._merged(v, order)
    assert [t for run in runs for t in run] == order
    for run in runs:
        assert len({(V.winners(v, t)[0][1], W.number(V.winners(v, t)[0][2])) for t in run}) == 1


# --- figures ---------------------------------------------------------------------------------------------------------


def test_fronts_are_monotone_and_hold_no_dominated_point(ds):
    case, _ = V.headline(ds)
    for y, sign in ((V.COST, 1), (V.THROUGHPUT, -1)):
        for panel in fronts.fronts(ds, y, case.scenario).panels:
            for series in (s for s in panel.series if s.kind == "front"):
                x, values = np.array([p.x for p in series.points]), sign * np.array([p.y for p in series.points])
                assert (np.diff(x) > 0).all() and (np.diff(values) > 0).all()


def test_one_panel_a_case_and_every_feasible_family_and_chip_in_it(ds):
    record = fronts.fronts(ds, V.COST, "owner-2026")
    assert len(record.panels) == 4
    labels = {s.label for s in record.panels[0].series}
    assert {glossary.label(f) for f in fake.FAMILIES} <= labels
    assert {"NVIDIA B200 SXM", "NVIDIA H100 SXM", "Taalas HC1 (claim)"} <= labels
    assert not any("brain" in label.lower() for label in labels)


def test_only_the_best_chips_are_named_and_the_common_front_among_them(ds, head, monkeypatch):
    v, limit = head
    monkeypatch.setattr(fronts, "MOST_NAMED", 2)
    series = fronts.fronts(ds, V.COST, v.case.scenario).panels[0].series
    assert [s.kind for s in series if s.kind in ("real", "claim", "unnamed")].count("unnamed") == 3  # five chips
    cheapest = V.cheapest_existing(v, limit)
    assert W.short(str(v.chip[cheapest])) in {s.label for s in series if s.kind == "real"}


def test_measured_cost_is_chip_hour_over_measured_throughput(ds):
    case = V.Case("deepseek-r1", "chat-1k-1k", "owner-2026")
    panel = fronts.fronts(ds, V.COST, case.scenario, only=case).panels[0]
    point = next(s for s in panel.series if s.kind == "measured").points[0]
    hours = ds["usd_per_chip_hour"].sel(design="nvidia-b200-sxm", model=case.model, workload=case.workload, scenario=case.scenario)
    assert point.y == pytest.approx(float(hours.median()) / 3600 / 900 * 1e6)
    assert point.x == 55


def test_shares_sum_to_one_and_totals_are_the_metric(ds, head):
    v, _ = head
    for record in info.breakdowns(ds):
        for _, bars in record.panels:
            assert all(sum(s for _, s in b.shares) == pytest.approx(1) for b in bars)
    dollar = next(r for r in info.breakdowns(ds) if r.name == "dollar")
    first = dollar.panels[0][1][0]
    assert first.total == pytest.approx(V.winners(v, info.shown_limits(ds)[0])[0][2])


def test_shown_limits_have_the_headline_and_two_others_loosest_first(ds, head):
    v, limit = head
    shown = info.shown_limits(ds)
    assert len(shown) == 3 and shown[1] == limit
    assert v.limits_s[shown[0]] > v.limits_s[shown[1]] > v.limits_s[shown[2]]


def test_tornado_is_sorted_by_size(ds):
    record = info.tornado(ds)
    assert record is not None
    for _, lines in record.panels:
        sizes = [abs(e) for _, e in lines]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) <= info.MOST_BARS
    assert info.tornado(ds.drop_vars("elasticity")) is None


def test_captions_carry_the_numbers(ds, head):
    v, limit = head
    family, _, cost = V.winners(v, limit)[0]
    caption = fronts.fronts(ds, V.COST, v.case.scenario).caption
    assert glossary.label(family) in caption and W.number(cost) in caption and "50 token/s/user" in caption


def test_throughput_caption_counts_every_speed_above_the_promise(ds, head):
    v, limit = head
    fast = v.candidate[:, None] & v.feasible & ~v.below_4_bit & (v.grid(V.SPEED) >= 1 / v.limits_s[limit])
    most = float(np.max(v.grid(V.THROUGHPUT)[fast]))
    assert f"most per chip is {W.number(most)} token/s/chip" in fronts.fronts(ds, V.THROUGHPUT, v.case.scenario).caption


# --- the page ----------------------------------------------------------------------------------------------------------


class Structure(HTMLParser):
    """Ids, links, resources and unclosed tags of a page."""

    VOID = {"meta", "input", "br", "path", "use", "rect", "img", "circle", "line", "polygon"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.resources, self.stack = [], [], [], []

    def handle_starttag(self, tag, attrs):
        row = dict(attrs)
        self.ids += [row["id"]] if "id" in row else []
        if tag == "a":
            self.links.append(row["href"])
        self.resources += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data") and tag != "a"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def test_page_is_whole_small_and_needs_no_network(written):
    text = written.read_text(encoding="utf-8")
    page = Structure()
    page.feed(text)
    assert page.stack == []
    assert len(text) < 3e6
    assert "<script" not in text and "@import" not in text and "nan" not in re.findall(r">([^<]{1,5})<", text)
    assert all(r.startswith("#") for r in page.resources)
    assert len(page.ids) == len(set(page.ids))
    assert all(r[1:] in page.ids for r in page.resources)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("http"):
            assert (written.parent / link).is_file()


def test_same_dataset_same_bytes(ds, written, tmp_path):
    again = write_report(ds.copy(deep=True), tmp_path)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(written.parent) for p in written.parent.rglob("*") if p.is_file())
    assert [f for f in files if (tmp_path / f).read_bytes() != (written.parent / f).read_bytes()] == []
    assert again.name == "report.html"


def test_every_figure_has_its_data_beside(written):
    figures = written.parent / "figures"
    assert (figures / "headline.png").read_bytes()[:4] == b"\x89PNG"
    drawn = sorted(p.stem for p in figures.glob("*.svg"))
    assert drawn and all((figures / f"{name}.csv").is_file() for name in drawn)
    with (figures / "bound.csv").open(encoding="utf-8") as file:
        assert {r["family"] for r in csv.DictReader(file)} == set(fake.FAMILIES)


def test_tooltips_stand_on_marks(written):
    text = written.read_text(encoding="utf-8")
    assert re.search(r"<title>Stacked DRAM [^<]*token/s/user[^<]*chips[^<]*</title>", text)


def test_text_of_the_dataset_is_escaped(ds, tmp_path):
    hostile = ds.copy()
    hostile.attrs = {**ds.attrs, "title": "<b>&", "question": "<i>"}
    text = write_report(hostile.isel(model=[0], workload=[0], scenario=[0]), tmp_path).read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;&amp;</title>" in text and "<i>" not in text.replace("<i style", "")


def test_report_of_a_bare_dataset(ds, tmp_path):
    """Without the optional attributes and variables there are fewer sections, not an error."""
    bare = ds.drop_vars(["elasticity", "area_mm2", "unit_cost_usd", "time_s", "usd_per_chip_hour"]).isel(
        model=[0], workload=[0], scenario=[0]
    )
    bare.attrs = {}
    text = write_report(bare, tmp_path).read_text(encoding="utf-8")
    assert "What matters most" not in text and "None recorded" in text


# --- terminal and exports -------------------------------------------------------------------------------------------------


def test_summary_fits_the_terminal(ds, head):
    v, limit = head
    text = terminal.summary(ds)
    assert len(text.splitlines()) <= 25
    assert glossary.label(V.winners(v, limit)[0][0]) in text and "token/s/user" in text


def test_designs_csv_keeps_the_contract(ds, head, tmp_path):
    v, limit = head
    path = export.write_designs_csv(ds, tmp_path / "designs.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:9] == ["design_id", "family", "chip", "status", "model", "workload", "scenario", "tpot_limit_s", "on_front"]
    wanted = {
        V.COST,
        "layout.tp",
        "format.weights",
        "time_s.compute",
        "cost_usd_per_s.idle",
        "memory_byte_per_chip.capacity",
        "slack_memory",
    }
    assert wanted <= set(rows[0]) and "cost_usd_per_s.tensor" not in rows[0]
    mine = [r for r in rows if (r["model"], r["workload"], r["scenario"]) == (v.case.model, v.case.workload, v.case.scenario)]
    best = str(v.ids[V.winners(v, limit)[0][1]])
    found = [r for r in mine if r["design_id"] == best and float(r["tpot_limit_s"]) == v.limits_s[limit]]
    assert len(found) == 1
    assert float(found[0][V.COST]) == pytest.approx(V.winners(v, limit)[0][2], rel=1e-6)
    assert all(r["status"] != "hypothetical" or r["on_front"] == "1" for r in rows)
    assert "nan" not in {x for r in rows for x in r.values()}


def test_diff_names_what_changed(ds, head):
    v, limit = head
    assert export.diff(ds, ds) == "No difference in inputs, winners or their cost."
    index = {
        "design": str(v.ids[V.winners(v, limit)[0][1]]),
        "model": v.case.model,
        "workload": v.case.workload,
        "scenario": v.case.scenario,
        "tpot_limit": v.limits_s[limit],
    }
    other = set_cell(ds, V.COST, index, V.winners(v, limit)[0][2] / 2)
    other.attrs = {**ds.attrs, "seed": 2}
    rows = json.loads(ds.attrs["assumptions"])
    rows[0]["value"] = 0.7
    other.attrs["assumptions"] = json.dumps(rows)
    lines = export.diff(ds, other).splitlines()
    assert lines[:2] == ["seed: 1 -> 2", f"assumption {rows[0]['name']}: 0.6 -> 0.7"]
    assert len(lines) == 3 and "−50 %" in lines[2] and "20 ms" in lines[2]


def test_cite_is_bibtex(ds):
    assert export.cite(ds).startswith("@misc{fake2025,\n  author = {Nobody}")


def test_explain_design(ds, head):
    v, limit = head
    best = str(v.ids[V.winners(v, limit)[0][1]])
    text = export.explain_design(ds, best[:7])
    assert text.startswith(best) and W.number(V.winners(v, limit)[0][2]) in text
    with pytest.raises(InputError, match="did you mean 'nvidia-b200-sxm'"):
        export.explain_design(ds, "nvidia-b20-sxm")
    with pytest.raises(InputError, match="stands for"):
        export.explain_design(ds, best[:2])
