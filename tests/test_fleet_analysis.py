"""The analysis of fleets: each host by itself, then over hosts. Fleets are copies of a kept run with changed rows."""

import importlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fleets
from test_report import EVIL, Page
from test_slices_analysis import documented, paths

from harness.analysis import claims_command, compare, run_files, show, study
from harness.analysis.fleet import compare as fleet_compare
from harness.analysis.fleet import facts, files
from harness.analysis.fleet import hosts as of_hosts
from harness.analysis.fleet import study as of_fleet
from harness.analysis.fleet.over_hosts import (
    DIFFER,
    EVERYWHERE,
    PARTLY,
    TOGETHER,
    TURNS,
    UNSURE,
    outcome,
    over_hosts,
)
from harness.analysis.fleet.random_effects import paule_mandel, squares, summary
from harness.analysis.intervals import Estimate, unpaired
from harness.report import fleet_page, report_command, trace

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    """Four hosts: sysv_shm is slower where the congestion control is bbr, and faster where it is reno."""
    place = tmp_path_factory.mktemp("fleets") / "turning"
    return fleets.fleet(place, fleets.TURNING, refused={"fir": "another version of harness-zmq"})


@pytest.fixture(scope="module")
def analysed(turning):
    return of_fleet.analyse(files.load(str(turning)))


def cell_of(found, design, files_there="1024"):
    (context,) = (one for one in found.contexts if one.levels["files"] == files_there)
    return next(
        cell for cell in context.cells if cell.levels["data"] == design and cell.levels["command"] == "posix_mq"
    )


# Each host by itself


def test_the_ratios_and_verdicts_of_a_host_are_those_of_its_own_directory(turning, analysed):
    for host in fleets.TURNING:
        alone = study.analyse(*run_files.load_run(f"{turning}/hosts/{host}"))
        there = {
            (context.label, cell.label): (cell.there[host].ratio, cell.there[host].verdict)
            for context in analysed.contexts
            for cell in context.cells
        }
        own = {
            (context.label, cell.label): (one.ratio, one.verdict)
            for context in alone.contexts
            for cell in context.cells
            for one in [cell.measurements[context.metric]]
        }
        assert there == own


def test_a_host_that_cannot_be_read_or_has_no_results_is_named_and_the_others_are_analysed(tmp_path, capsys):
    place = fleets.fleet(tmp_path / "fleet", {"ash": {"seed": 1}, "birch": {"seed": 2}, "cedar": {"seed": 3}})
    torn = place / "hosts/ash/trials.csv"
    torn.write_text(torn.read_text()[:-40])
    (place / "hosts/birch/trials.csv").unlink()
    found = of_fleet.analyse(files.load(str(place)))
    assert [bool(host.contexts) for host in found.hosts] == [False, False, True]
    assert show.main([str(place)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 hosts did not do their part: ash: cannot be read:" in said
    assert "a torn line; birch: no results." in said


# Over hosts


def test_a_verdict_that_turns_round_is_said_first_and_with_the_fact_that_it_goes_with(analysed, turning, capsys):
    cell = cell_of(analysed, "sysv_shm")
    assert cell.outcome == TURNS
    assert cell.verdicts == {"slower": ["ash", "cedar"], "faster": ["birch", "elm"]}
    # The kernel of birch and the processor of cedar are their own, and split hosts in another way.
    assert [split.fact for split in cell.splits] == ["congestion control"]
    assert analysed.rivals[0][1].outcome == TURNS
    assert show.main([str(turning)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Refused: fir (another version of harness-zmq)" in said
    assert (
        "slower on ash, cedar; faster on birch, elm. Goes with congestion control (bbr: slower; reno: faster)" in said
    )
    assert said.index("Turns round") < said.index("Holds everywhere, slower") < said.index("Cannot tell")


def test_a_verdict_that_each_host_has_holds_everywhere(analysed):
    cell = cell_of(analysed, "posix_mq", "102400")
    assert cell.outcome == EVERYWHERE
    assert {one.verdict for one in cell.there.values()} == {"slower"}
    assert cell.summary.ratio.high < 1
    assert cell.verdict == "slower"


def test_hosts_are_the_unit_of_what_is_said_over_hosts(analysed):
    cell = cell_of(analysed, "sysv_shm")
    assert cell.summary.ratio.n == cell.summary.prediction.n == 4
    logs = [math.log(one.ratio.value) for one in cell.there.values()]
    assert cell.summary.ratio.value == pytest.approx(math.exp(np.mean(logs)), rel=0.01)
    assert cell.summary.tau == pytest.approx(np.std(logs, ddof=1), rel=0.02)
    assert cell.summary.i2 > 0.99
    assert cell.summary.ratio.low < 1 < cell.summary.ratio.high


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    """Three hosts: one is good, one has no results, and the control of one is off."""
    hosts = {"ash": {"seed": 1}, "birch": {"seed": 2}, "cedar": {"seed": 3, "control": 1.3}}
    place = fleets.fleet(tmp_path_factory.mktemp("fleets") / "partial", hosts)
    (place / "hosts/birch/trials.csv").unlink()
    return place


def test_a_verdict_does_not_hold_everywhere_while_hosts_say_nothing(partial, capsys):
    found = of_fleet.analyse(files.load(str(partial)))
    cell = cell_of(found, "posix_mq", "102400")
    assert cell.there["ash"].verdict == "slower"
    assert cell.silent == ("birch", "cedar")
    assert EVERYWHERE not in {cell.outcome for _, cell in found.rivals}
    assert cell.outcome == PARTLY
    assert show.main([str(partial)]) == 0
    assert "Holds everywhere" not in (said := " ".join(capsys.readouterr().out.split()))
    assert "2 of 3 hosts say nothing" in said
    assert "holds on some: 2 of 3 hosts say nothing" in Page(fleet_page.write(str(partial))).text


def test_a_claim_is_not_supported_while_hosts_say_nothing(partial, capsys):
    assert claims_command.main([f"{partial}/hosts/ash"]) in {0, 1, 3}
    assert "supported: As a data channel, a System V queue is slower" in capsys.readouterr().out
    assert claims_command.main([str(partial)]) == 3
    said = capsys.readouterr().out
    assert not re.search("^supported", said, re.M)
    assert re.search(r"^undecided: As a data channel, a System V queue is slower", said, re.M)
    assert "undecided; supported on ash; " in said
    assert "; 2 of 3 hosts say nothing" in said


def test_a_host_whose_control_is_off_is_left_out_of_what_is_said_of_others(tmp_path):
    hosts = {name: {"seed": seed} for seed, name in enumerate(("ash", "birch", "cedar"), 1)}
    hosts["off"] = {"seed": 4, "control": 1.3, "faster": {"sysv_shm": 3.0}}
    found = of_fleet.analyse(files.load(str(fleets.fleet(tmp_path / "fleet", hosts))))
    cell = cell_of(found, "sysv_shm")
    assert cell.there["off"].verdict == "withheld"
    assert cell.summary.ratio.n == 3
    assert cell.outcome == "cannot tell"
    assert any("A/A control: OFF on 1 of 4 hosts" in note for note in found.notes)


WIDE = {"a": Estimate(1.5, 0.9, 2.5, 5, 0.99), "b": Estimate(0.6, 0.3, 1.1, 5, 0.99)}
APART = {"a": Estimate(1.5, 1.2, 1.9, 5, 0.99), "b": Estimate(0.6, 0.5, 0.8, 5, 0.99)}


@pytest.mark.parametrize(
    ("verdicts", "at_once", "became"),
    [
        ({"a": "faster", "b": "faster"}, APART, EVERYWHERE),
        ({"a": "faster", "b": "slower"}, APART, TURNS),
        ({"a": "faster", "b": "slower"}, WIDE, UNSURE),
        ({"a": "faster", "b": "cannot tell"}, APART, PARTLY),
        ({"a": "cannot tell", "b": "cannot tell"}, APART, "cannot tell"),
        ({"a": "withheld", "b": "withheld"}, APART, "withheld"),
    ],
)
def test_what_becomes_of_a_verdict(verdicts, at_once, became):
    assert outcome(verdicts, at_once) == became
    assert outcome(verdicts, at_once, silent=1) == (PARTLY if became == EVERYWHERE else became)


def test_intervals_of_all_hosts_hold_at_once_so_chance_seldom_turns_a_verdict_round():
    random = np.random.default_rng(7)
    turned = 0
    for _ in range(200):  # 40 hosts without any difference
        logs = {str(host): random.normal(0, 0.03, 4).tolist() for host in range(40)}
        at_once = over_hosts(logs, False, 1).at_once.values()
        turned += any(one.low > 1 for one in at_once) and any(one.high < 1 for one in at_once)
    assert turned <= 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Three like hosts that have the blocks of one study between them. The first has four, the others one each."""
    hosts = {"ash": {"blocks": [1, 2, 3, 4]}, "birch": {"blocks": [5]}, "cedar": {"blocks": [6]}}
    return fleets.fleet(tmp_path_factory.mktemp("fleets") / "shared", hosts, mode="share")


def test_all_blocks_that_hosts_shared_are_those_of_one_study_but_hosts_are_the_unit_of_what_is_said(shared, capsys):
    kept = run_files.load_run(str(fleets.KEPT))
    rows = [row for row in kept.trials if row.block <= 6]
    alone = study.analyse(rows, kept.experiment, kept.slices)
    found = of_fleet.analyse(files.load(str(shared)))
    for context, one in zip(found.contexts, alone.contexts, strict=True):
        own = {cell.label: cell.measurements["requests_per_s"] for cell in one.cells}
        for cell in context.cells:
            assert cell.together == (own[cell.label].ratio if not cell.baseline else None)
            assert cell.outcome == ("" if cell.baseline or cell.floor else TOGETHER)
            if cell.together:
                assert cell.mean == cell.summary.ratio
                assert cell.mean.n == 3
                ends = math.log(cell.mean.high / cell.mean.low)
                assert ends > math.log(cell.together.high / cell.together.low)
    assert {answer.outcome for answer in found.answers} <= {answer.outcome for answer in alone.answers} | {"undecided"}
    assert show.main([str(shared)]) == 0
    assert "which shared the blocks of one study" in capsys.readouterr().out


def test_a_host_whose_control_is_off_has_no_blocks_among_those_that_hosts_shared(tmp_path):
    hosts = {"ash": {"blocks": [1, 2, 3]}, "birch": {"blocks": [4, 5, 6]}, "cedar": {"blocks": [7, 8, 9]}}
    without = fleets.fleet(tmp_path / "without", hosts, mode="share")
    hosts["off"] = {"seed": 4, "control": 1.3, "faster": {"sysv_shm": 3.0}}
    cells = []
    for place in (without, fleets.fleet(tmp_path / "with", hosts, mode="share")):
        cells.append(cell_of(of_fleet.analyse(files.load(str(place))), "sysv_shm"))
    assert cells[1].there["off"].verdict == "withheld"
    assert cells[1].silent == ("off",)
    assert cells[0].together == cells[1].together
    assert cells[0].mean == cells[1].mean


def test_hosts_that_are_one_machine_predict_nothing_of_the_next_one(tmp_path, capsys):
    place = fleets.fleet(tmp_path / "fleet", {name: {"seed": seed} for seed, name in enumerate(("a", "b", "c"), 1)})
    for name in "abc":
        path = place / f"hosts/{name}/environment.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "one"}))
    found = of_fleet.analyse(files.load(str(place)))
    assert not found.apart
    assert all(cell.summary.ratio.bounded and not cell.summary.prediction.bounded for _, cell in found.rivals)
    assert all(not one.summary.prediction.bounded for answer in found.answers for one in answer.findings)
    assert show.main([str(place)]) == 0
    assert "3 hosts are on 1 machine, as environment.json says" in " ".join(capsys.readouterr().out.split())
    page = Page(fleet_page.write(str(place)))
    assert "Nothing is said of the next machine." in page.text
    assert "next machine" not in page.texts
    for number, name in enumerate("abc"):  # the id of a boot counts more than a name
        path = place / f"hosts/{name}/environment.json"
        environment = json.loads(path.read_text())
        environment["kernel"]["boot_id"] = str(number)
        path.write_text(json.dumps(environment))
    assert of_fleet.analyse(files.load(str(place))).apart


def test_hosts_that_shared_a_study_and_differ_are_not_taken_as_one(tmp_path, capsys):
    hosts = {"ash": {"blocks": [1, 2, 3]}, "birch": {"blocks": [4, 5, 6], "faster": {"sysv_shm": 1.5}}}
    hosts["cedar"] = {"blocks": [7, 8, 9]}
    place = fleets.fleet(tmp_path / "fleet", hosts, mode="share")
    cell = cell_of(of_fleet.analyse(files.load(str(place))), "sysv_shm")
    assert cell.outcome == DIFFER
    assert cell.mean == cell.summary.ratio
    assert cell.verdict == "cannot tell"
    assert show.main([str(place)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Hosts differ: posix_mq + sysv_shm, 1 KiB files: 0.9" in said
    assert "on birch. They are not those of one study." in said


# Facts


def test_a_fact_goes_with_a_verdict_where_nearly_all_hosts_with_a_value_of_it_have_the_same_verdict():
    known = {str(host): {"kernel": "6.1" if host < 10 else "6.18", "CPUs": str(host)} for host in range(20)}
    verdicts = {host: "faster" if one["kernel"] == "6.1" else "slower" for host, one in known.items()}
    assert [one.text for one in facts.splits(verdicts, known)] == ["kernel (6.1: faster; 6.18: slower)"]
    verdicts["3"] = "slower"
    assert [one.text for one in facts.splits(verdicts, known)] == ["kernel (6.1: faster on 9 of 10; 6.18: slower)"]
    for host in "456":
        verdicts[host] = "slower"
    assert facts.splits(verdicts, known) == []


def test_a_fact_that_each_host_has_for_itself_says_nothing():
    known = {host: {"kernel": host, "processor": "one" if host != "c" else "other"} for host in "abc"}
    verdicts = {"a": "faster", "b": "slower", "c": "slower"}
    assert facts.splits(verdicts, known) == []


# Statistics


def test_the_summary_agrees_with_the_published_one_of_the_bcg_trials():
    """Colditz 1994, as R's metafor gives them: log relative risks and variances of 13 trials; Q 152.2, tau^2 of Paule
    and Mandel 0.318."""
    logs = [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459,
            -0.0173]  # fmt: skip
    variances = [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714]
    found = summary(np.array(logs), np.array(variances))
    assert found.q == pytest.approx(152.23, rel=0.01)
    assert found.tau**2 == pytest.approx(0.318, abs=0.002)
    assert math.log(found.ratio.value) == pytest.approx(-0.715, abs=0.002)
    assert found.p < 1e-20


FINITE = st.floats(-2, 2)


@given(st.lists(st.tuples(FINITE, st.floats(1e-4, 1)), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_scatter_of_hosts_is_the_root_of_paule_and_mandel_or_0(hosts):
    logs, variances = np.array(hosts).T
    tau2 = paule_mandel(logs, variances)
    wanted = len(hosts) - 1
    if tau2 > 0:
        assert squares(logs, variances, tau2) == pytest.approx(wanted, rel=1e-6)
    else:
        assert squares(logs, variances, 0.0) <= wanted * (1 + 1e-6)


@given(st.lists(st.tuples(FINITE, st.floats(1e-4, 1)), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_the_interval_of_the_mean_is_never_narrower_than_without_any_scatter_of_hosts(hosts):
    logs, variances = np.array(hosts).T
    found = summary(logs, variances)
    normal = 1.96 / math.sqrt((1 / variances).sum())
    assert math.log(found.ratio.high / found.ratio.value) >= normal * (1 - 1e-9)
    assert found.prediction.low <= found.ratio.low * (1 + 1e-9)


def test_one_host_has_no_interval_over_hosts_and_two_predict_nothing_of_the_next():
    one, two = (summary(np.zeros(k), np.full(k, 0.01)) for k in (1, 2))
    assert not one.ratio.bounded
    assert two.ratio.bounded
    assert not two.prediction.bounded
    assert summary(np.zeros(3), np.full(3, 0.01)).prediction.bounded
    assert summary(np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize(
    ("hosts", "tau", "unlike", "share"),
    [
        (3, 0.0, 1, False), (3, 0.1, 3, False), (10, 0.03, 1, False), (30, 0.1, 3, False), (5, 0.03, 1, True),
        (3, 0.03, 1, True), (3, 0.3, 1, True),
    ],
)  # fmt: skip
def test_intervals_over_hosts_hold_as_often_as_they_say(monkeypatch, hosts, tau, unlike, share):
    """benchmarks/fleet_coverage.py has the table. 400 fleets: 0.95 less three standard errors is 0.917."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    coverage = importlib.import_module("fleet_coverage").coverage
    mean, following = coverage(400, hosts, 2 if share else 5, tau, unlike, share)
    assert mean > 0.917
    assert following > 0.917


def test_blocks_of_hosts_are_not_pooled_after_a_test_because_such_intervals_hold_too_seldom(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    after_a_test = importlib.import_module("fleet_coverage").after_a_test
    tested, reported = after_a_test(400, 3, 4, 0.03)
    assert tested < 0.9
    assert reported > 0.917


# Commands


def test_the_json_of_a_fleet_has_the_keys_that_are_documented_and_no_others(turning, shared, partial, capsys):
    known, seen = documented("fleet"), set()
    for place, code in ((turning, 1), (shared, 3), (partial, 3)):
        assert show.main(["--json", str(place)]) == 0
        shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert claims_command.main(["--json", str(place)]) == code
        answered = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert answered["claims"] == shown["claims"]
        for path, value in paths(shown):
            if path in known:
                assert isinstance(value, known[path]), path
                seen.add(path)
            else:
                assert value is None, path
                assert path.rpartition(".")[2] in {"ratio", "at_once", "summary", "together"}, path
    assert seen == set(known)


def test_claims_of_a_fleet_hold_where_every_host_supports_them_and_fail_where_one_host_refutes_them(turning, capsys):
    assert claims_command.main([str(turning)]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^refuted: System V shared memory is as fast", said, re.M)
    assert re.search(r"^undecided: Commands over a System V queue", said, re.M)
    assert re.search(r"^supported: As a data channel, a System V queue is slower", said, re.M)
    assert "1 KiB files: refuted; refuted on ash, birch, cedar, elm; over hosts 1.02" in said


def test_two_runs_of_a_fleet_are_compared_host_by_host(tmp_path, turning, capsys):
    slower = {name: {**given, "faster": {"posix_mq": 0.5}} for name, given in fleets.TURNING.items()}
    slower.pop("elm")
    after = fleets.fleet(tmp_path / "after", slower)
    assert compare.main([str(turning), str(after), "--force"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Ratios of B to A on 3 hosts" in said
    assert "holds everywhere (3 slower)" in said
    assert "In one of the fleets only: elm." in said
    assert compare.main([str(turning), str(turning)]) == 0


def test_a_host_that_seems_exact_by_chance_does_not_decide_what_a_comparison_says_of_all():
    exact, coarse = [0.0, 0.003, -0.003], [0.0, 0.03, -0.03]

    def pair(a, b):
        return compare.Pair({}, Estimate(1, 0, 2, 3, 0.95), Estimate(1, 0, 2, 3, 0.95), unpaired(b, a), "", (a, b))

    pairs = [pair(exact, [one + 0.3 for one in exact]), *(pair(coarse, coarse) for _ in range(6))]
    errors = fleet_compare.errors_of(pairs, share=False)
    assert errors[0] > 5 * 0.003**2 * 2 / 3  # Welch's own
    assert (errors[1:] >= 0.03**2 * 2 / 3 * (1 - 1e-9)).all()
    assert fleet_compare.errors_of(pairs[1:], share=True) == pytest.approx([0.03**2 * 2 / 3] * 6)


def test_two_shared_studies_are_compared_over_hosts_and_not_with_one_that_each_host_ran(tmp_path, turning, capsys):
    hosts = {name: {"blocks": [2 * place + 1, 2 * place + 2]} for place, name in enumerate("abcd")}
    before = fleets.fleet(tmp_path / "before", hosts, mode="share")
    slower = {name: {**given, "faster": {"posix_mq": 0.3}} for name, given in hosts.items()}
    after = fleets.fleet(tmp_path / "after", slower, mode="share")
    assert compare.main([str(before), str(after)]) == 1
    assert "Ratios of B to A on 4 hosts" in " ".join(capsys.readouterr().out.split())
    assert compare.main([str(before), str(before)]) == 0
    capsys.readouterr()
    assert compare.main([str(turning), str(after), "--force"]) == 2
    assert re.fullmatch(r"compare: .* is of mode each, .* of mode share\n", capsys.readouterr().err)


def test_a_trace_is_that_of_a_host_and_not_of_a_fleet(turning, capsys):
    assert trace.main([str(turning)]) == 2
    assert f"trace one of its hosts: {turning}/hosts/NAME\n" in capsys.readouterr().err


def test_a_fleet_is_not_compared_with_a_single_run(turning, capsys):
    assert compare.main([str(turning), str(fleets.KEPT)]) == 2
    assert "is the run of a fleet, the other one is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not of schema 1"),
        ('{"schema": 2, "mode": "each", "hosts": []}', "not of schema 1"),
        ('{"schema": 1, "mode": "eech", "hosts": []}', "each"),
        ('{"schema": 1, "mode": "each", "hosts": "a"}', "`hosts` is no list"),
        ('{"schema": 1, "mode": "each", "hosts": ["../a"]}', "'../a' is no name of a host"),
        ('{"schema": 1, "mode": "each", "hosts": ["a", "a"]}', "a host is named twice"),
    ],
)
@pytest.mark.parametrize("command", [show.main, claims_command.main, report_command.main])
def test_a_broken_fleet_file_is_one_clear_line(tmp_path, capsys, command, text, said):
    (tmp_path / "fleet.json").write_text(text)
    assert command([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


# The report


def test_the_report_of_a_fleet_has_a_forest_plot_for_each_design_with_a_row_for_each_host(turning):
    page = Page(fleet_page.write(str(turning)))
    assert "3 turn round" in page.text
    assert "Goes with congestion control (bbr: slower; reno: faster)" in page.text
    assert page.figures() == [f"figure-hosts-{number}" for number in (1, 2, 3, 4)]
    for name in (*fleets.TURNING, "mean", "next machine", "congestion control: bbr"):
        assert name in page.texts
    rows = page.data["tables"]["ratios"]["rows"]
    assert len(rows) == 4 * 3 * 4  # hosts, contexts, cells without the baseline
    assert len(page.data["tables"]["hosts"]["rows"]) == 4


def test_what_hosts_say_of_themselves_is_never_markup(tmp_path):
    place = fleets.fleet(tmp_path / "fleet", {"ash": {"kernel": EVIL, "cpu": EVIL}}, refused={EVIL: EVIL})
    page = Page(fleet_page.write(str(place)))
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert sum(tag == "script" for tag, _ in page.elements) == 2


def test_an_index_has_fleets_among_the_runs(tmp_path, capsys):
    fleets.fleet(tmp_path / "fleet", {"ash": {"seed": 1}, "birch": {"seed": 2}})
    assert report_command.main([str(tmp_path)]) == 0
    page = Page(tmp_path / "index.html")
    assert "Fleet: 2 hosts, each ran the whole study." in page.text
    assert (tmp_path / "fleet/report.html").exists()


def test_more_hosts_than_a_chart_has_room_for_are_drawn_evenly_with_the_extremes():
    from harness.report import fleet_charts

    there = {
        f"h{number}": of_hosts.CellThere(
            "b", {}, False, False, Estimate(1 + number / 100, 0.9, 2, 5, 0.95), "cannot tell"
        )
        for number in range(100)
    }
    context = of_fleet.FleetContext(
        {}, "", "requests_per_s", [of_fleet.FleetCell("b", {}, False, False, there, outcome=PARTLY)]
    )
    hosts = [of_hosts.Host(name, {}) for name in there]
    found = of_fleet.FleetStudy("", "", "each", hosts, {}, {}, [context], 1, [], [])
    (chart,) = fleet_charts.charts(found)
    drawn = str(chart.draw(860))
    assert drawn.count("data-tip=") == 32
    assert ">h0<" in drawn
    assert ">h99<" in drawn
    assert chart.note.startswith("32 of 100 hosts are drawn")
