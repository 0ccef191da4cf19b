"""What a running search is doing, in one line."""

from __future__ import annotations

from mpt.search.display.status import Status


def test_the_status_adds_up_over_trials_and_forgets_those_that_ended() -> None:
    status = Status()
    assert status.text(60.0) == ""
    tuning = {"finished": 3, "running": 4, "waiting": 5, "steps_s": 1.5, "examples_s": 12.0}
    status.report(0, tuning)
    status.report(1, {**tuning, "finished": 10})
    assert status.text(60.0) == (
        "runs     13 finished, 8 running, 10 waiting · 60 s left · 3 steps/s"
    )
    status.report(1, {**tuning, "running": 0, "waiting": 0})  # all of a rung, once they are there
    status.report(0, {**tuning, "running": 0, "waiting": 0})
    assert status.text(60.0) == "runs     6 finished · 60 s left · 3 steps/s"
    status.report(1, {**tuning, "finished": 10})
    status.report(0, {**tuning, "finished": 4})  # the newest report of a trial counts
    assert status.text(60.0).startswith("runs     14 finished")
    status.report(0, None)
    status.report(1, None)
    assert status.text(60.0) == ""


def test_the_status_of_a_search_of_thousands_of_runs_fits_80_columns() -> None:
    status = Status()
    status.report(0, {"finished": 4500, "running": 144, "waiting": 4320, "steps_s": 0.0123456})
    assert len(status.text(3 * 3600.0)) <= 80


def test_the_status_says_how_far_choices_of_starts_are() -> None:
    status = Status()
    race = {"how": "raced", "made": 12, "of": 45}
    status.report(0, None, race)
    assert status.text(60.0) == "runs     racing starts 12 of 45 · 60 s left"
    status.report(1, None, {**race, "made": 1})
    status.report(2, None, {"how": "chosen", "made": 3, "of": 9})
    starts = "racing starts 13 of 90 · choosing starts 3 of 9"
    assert status.text(60.0) == f"runs     {starts} · 60 s left"
    tuning = {"finished": 3, "running": 4, "waiting": 5, "steps_s": 1.5}
    status.report(0, tuning)  # its choice is made
    status.report(2, None)
    assert status.text(60.0) == (
        "runs     3 finished, 4 running, 5 waiting · 60 s left · racing starts 1 of 45 · "
        "1.5 steps/s"
    )
