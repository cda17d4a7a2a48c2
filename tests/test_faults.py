"""Faults as a factor: programs that are killed, stopped or left in the middle of a trial."""

import re
from functools import partial

import pytest
from support.programs import start_run
from test_live_runs import WRONG

from harness import results
from harness.analysis import notes
from harness.experiment import language, planner
from harness.factors import FACTORS, Spec
from harness.measure import apart
from harness.results import Trial

SHORT = {"clients": 4, "client_processes": 1, "proxy_processes": 2, "cache_processes": 2, "lanes": 2, "warmup": 0.02}
SHORT |= {"timeout": 1.0, "seconds": 0.5, "fault_at": 0.2, "files": "65536"}


@pytest.mark.parametrize(
    ("written", "fault", "shown"),
    [
        ("none", "", "none"),
        ({"kill": "cache"}, "kill cache", "kill cache"),
        ("kill proxy-worker", "kill proxy-worker", "kill proxy-worker"),
        ({"stop": "cache", "for": "300ms"}, "stop cache for 0.3s", "stop cache for 0.3s"),
        ("stop proxy for 2s", "stop proxy for 2s", "stop proxy for 2s"),
        ({"reset": "client"}, "reset client", "reset client"),
    ],
)
def test_a_fault_has_one_spelling(written, fault, shown):
    kind = FACTORS["fault"].kind
    assert kind.parse(written, "") == fault
    assert kind.parse(fault, "") == fault
    assert kind.show(fault) == shown


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("kil cache", "kil is no fault: write `none`; `{kill: cache}`"),
        (["kill"], "is no fault"),
        ({"kill": "origin"}, "origin: no such kill of; there is cache, cache-worker"),
        ({"kill": "cache", "for": "1s"}, "kill cache: nothing else goes with it"),
        ({"stop": "cache"}, "stop cache: say how long, `for: 1s`"),
        ({"stop": "cache", "for": "long"}, "long"),
        ({}, "is no fault"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_to_write(written, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        FACTORS["fault"].kind.parse(written, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("factors: {fault: {kill: cache}, source: direct}", ": is done to the pipeline with a cache"),
        ("factors: {fault: {kill: cache}, scope: lane}", ": is done to the pipeline with a cache"),
        ("factors: {fault: {kill: cache}, fault_at: 3s}", ": 3 s is after the load, which lasts 1 s"),
        ("design: live\nfactors: {fault: [none, {kill: cache}]}", "a fault ends programs that others would share"),
    ],
)
def test_a_fault_that_the_cell_has_no_room_for_is_refused(tmp_path, text, reason):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(language.Mistakes) as refused:
        planner.load_plan(str(tmp_path / "study.yaml"), "study")
    assert reason in str(refused.value)


@pytest.mark.processes
@pytest.mark.parametrize("data", ["posix_shm", "handoff"])
@pytest.mark.parametrize(
    "fault",
    ["kill cache", "kill cache-worker", "kill proxy", "kill proxy-worker", "stop cache for 0.3s", "reset client"],
)
def test_files_come_again_after_a_fault_and_none_is_wrong(base, fault, data):
    row = apart.run(Spec(fault=fault, data=data, **SHORT), Trial(trial=1))
    assert (row.status, row.reason) == ("ok", "")
    assert (row.fault, row.fault_at, row.wrong) == (fault, 0.2, 0)
    assert row.outage_s > (0.3 if "stop" in fault else 0)
    assert row.outage_s < 20
    assert row.ok > 0
    assert row.ok + row.error + row.short + row.failed == row.requests_ended
    if fault.startswith("kill"):
        assert row.proxy_user_s == 0, "nothing is known of what the killed programs have used"
    elif data == "posix_shm":
        assert row.swept == 0
        assert row.proxy_user_s + row.proxy_kernel_s > 0


@pytest.mark.processes
def test_a_wrong_reply_fails_the_trial_also_where_others_may_be_lost(base, plugins, tmp_path):
    plugins("wrong", WRONG.replace("AFTER", "0.15"))
    code, _, row = run_study(tmp_path, "factors: {fault: {reset: client}, data: wrong}")
    assert code == 1
    assert row.status == "failed"
    assert re.search(r"not every reply was OK: .*\d+ wrong|after the fault a reply was wrong", row.reason)


@pytest.mark.processes
def test_a_run_keeps_faults_apart_and_says_what_they_cost(base, tmp_path):
    code, output, row = run_study(tmp_path, "factors: {fault: {kill: cache}, data: unix}")
    assert code == 0, "what was killed may leave objects, and requests may be lost"
    assert "After `kill cache` files came again within " in " ".join(output.split())
    assert (row.fault, row.fault_at, row.design) == ("kill cache", 0.1, "apart")
    assert row.outage_s > 0


def run_study(directory, factors):
    """(exit code, output, last row) of a run of one cell."""
    settings = "clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 1, warmup: 20ms"
    settings += ", seconds: 400ms, fault_at: 100ms, timeout: 1s"
    (directory / "study.yaml").write_text(f"{factors}\nsettings: {{{settings}}}\nrepeats: 1\n")
    process = start_run(directory / "study.yaml", "-o", directory / "out")
    output, _ = process.communicate(timeout=120)
    *_, row = results.read(str(directory / "out/trials.csv"))
    return process.returncode, output, row


def test_the_sentence_about_a_fault_counts_what_was_lost():
    lost = {"requests_ended": 10, "ok": 7, "error": 2, "short": 1, "swept": 3}
    trial = partial(Trial, status="ok", command="posix_mq", fault="kill cache", **lost)
    rows = [trial(data="fifo", outage_s=1.0), trial(data="unix", outage_s=0.25)]
    (sentence,) = notes.after_faults([*rows, Trial(status="ok"), Trial(status="failed", fault="kill proxy")])
    assert sentence == (
        "After `kill cache` files came again within 0.25 s (posix_mq + unix), 1 s (posix_mq + fifo), medians of the "
        "trials. Of 20 requests 4 were answered with ERROR, 2 were cut, 0 were not answered, and 0 wrong. "
        "3 to 3 objects a trial had to be swept."
    )
