"""``python -m mpt.gym``: output, exit codes, progress, interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gym_rows
import huggingface_hub
import pytest

from mpt.gym.__main__ import main
from mpt.gym.crossfit.tasks import load_rows

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def mirror(folder: Path, *names: str) -> Path:
    for name in names:
        row = load_rows()[name]
        (folder / name).mkdir(parents=True)
        for split in row.splits.names:
            lines = (json.dumps(raw) + "\n" for raw in gym_rows.rows(row, split))
            (folder / name / f"{split}.jsonl").write_text("".join(lines))
    return folder


def build(source: Path | str, out: Path, *more: str) -> int:
    return main(["build", "--source", str(source), "--out", str(out), "--jobs", "1", *more])


def test_build_builds_every_task_of_a_mirror_and_a_second_run_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = mirror(tmp_path / "raw", "xsum", "sick")
    (raw / "README.md").write_text("a file is not a task")
    assert build(raw, tmp_path / "gym") == 0
    assert "2 tasks built, 0 were there already, 0 failed" in capsys.readouterr().out
    assert build(raw, tmp_path / "gym") == 0
    shown = capsys.readouterr()
    assert "0 tasks built, 2 were there already, 0 failed" in shown.out
    assert "2/2" in shown.err  # the progress bar
    assert (tmp_path / "gym" / "sick" / "sick_16_100_test.tsv").is_file()


def test_tasks_shots_and_seeds_are_chosen(tmp_path: Path) -> None:
    raw = mirror(tmp_path / "raw", "xsum", "sick")
    assert build(raw, tmp_path / "gym", "--tasks", "sick", "--shots", "32", "--seeds", "7,8") == 0
    files = sorted(path.name for path in (tmp_path / "gym" / "sick").glob("*_dev.tsv"))
    assert files == ["sick_32_7_dev.tsv", "sick_32_8_dev.tsv"]
    assert not (tmp_path / "gym" / "xsum").exists()
    assert build(raw, tmp_path / "all", "--shots", "all", "--seeds", "7", "--tasks", "sick") == 0
    assert (tmp_path / "all" / "sick" / "sick_all_7_train.tsv").is_file()


def test_a_wrong_mirror_directory_is_named_the_others_are_built_and_the_code_is_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = mirror(tmp_path / "raw", "xsum")
    (raw / "sickk").mkdir()
    assert build(raw, tmp_path / "gym") == 3
    shown = capsys.readouterr()
    assert "sickk" in shown.err
    assert "near it are sick" in shown.err
    assert "1 task built, 0 were there already, 1 failed" in shown.out
    assert not (tmp_path / "gym" / "sickk").exists()


def test_offline_each_hub_task_fails_with_one_sentence_and_the_code_is_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert build("hub", tmp_path / "gym", "--tasks", "xsum,sick,eli5-asks") == 3
    shown = capsys.readouterr()
    told = [line for line in shown.err.splitlines() if line.startswith("not built: task ")]
    assert len(told) == 3
    assert "0 tasks built, 0 were there already, 3 failed" in shown.out
    assert [path.name for path in (tmp_path / "gym").iterdir()] == ["unavailable.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tasks", "sick,sick"], 3, "--tasks names 'sick' twice"),
        (["--tasks", "sickk"], 2, "task 'sickk' is unknown; near it are sick"),
        (["--tasks", "sick,"], 2, "task '' is unknown"),
        (["--seeds", "1,1"], 2, "--seeds is '1,1', but must be different whole numbers"),
        (["--seeds", "x"], 2, "--seeds is 'x'"),
        (["--seeds", "-1"], 2, "--seeds is '-1'"),
        (["--seeds", "4294967296"], 2, "from 0 to 4294967295"),
        (["--jobs", "0"], 2, "--jobs is 0, but must be at least 1"),
    ],
)
def test_bad_flags_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    code: int,
    message: str,
) -> None:
    raw = mirror(tmp_path / "raw", "sick")
    assert build(raw, tmp_path / "gym", *arguments) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gym").exists()


@pytest.mark.parametrize("arguments", [["--shots", "20"], ["--frobnicate"], []])
def test_flags_that_do_not_parse_are_usage_errors_of_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *arguments]) == 2
    assert re.fullmatch(r"error: .* \(see --help\)\n", capsys.readouterr().err)


def test_absent_and_empty_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(tmp_path / "absent", tmp_path / "gym") == 2
    assert main(["verify", str(tmp_path / "absent")]) == 2
    assert main(["doctor", str(tmp_path / "absent")]) == 2
    (tmp_path / "raw").mkdir()
    assert build(tmp_path / "raw", tmp_path / "gym") == 3
    (tmp_path / "file").write_text("")
    assert build(mirror(tmp_path / "good", "sick"), tmp_path / "file") == 2
    assert main(["verify", str(tmp_path / "raw")]) == 3
    assert capsys.readouterr().err.count("error: ") == 6


def test_a_place_that_cannot_be_written_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = mirror(tmp_path / "raw", "sick")
    (tmp_path / "file").write_text("")
    assert build(raw, tmp_path / "file" / "gym") == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_verify_names_what_differs_and_ends_with_1_and_with_0_where_nothing_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = SHARED / "raw_rows"
    if not raw.is_dir():
        pytest.skip("no real raw rows beside the checkout")
    assert build(raw, tmp_path / "gym", "--tasks", "poem_sentiment,ethos-race") == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "gym")]) == 0
    assert "30 of 2400 published files are there and the same, 0 differ" in capsys.readouterr().out
    path = tmp_path / "gym" / "ethos-race" / "ethos-race_16_42_dev.tsv"
    path.write_bytes(path.read_bytes().replace(b"true", b"True", 1))
    assert main(["verify", str(tmp_path / "gym")]) == 1
    shown = capsys.readouterr().out
    assert "differs: ethos-race_16_42_dev.tsv" in shown
    assert "29 of 2400 published files are there and the same, 1 differ, 2370 are absent" in shown


def test_verify_of_synthetic_data_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(mirror(tmp_path / "raw", "sick"), tmp_path / "gym")
    assert main(["verify", str(tmp_path / "gym")]) == 1
    assert capsys.readouterr().out.count("differs: sick_16_") == 15


def test_doctor_prints_tasks_partitions_and_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task, text in (("ethos-race", "one hateful comment"), ("ethos-disability", "another one")):
        (tmp_path / task).mkdir()
        for part in ("train", "dev", "test"):
            path = tmp_path / task / f"{task}_16_13_{part}.tsv"
            path.write_text(f"{text} {part}\ttrue\nshared words\tfalse\n")
    assert main(["doctor", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "differs      ethos-race" in shown
    assert "unavailable  glue-rte" in shown
    assert "    2 differs" in shown
    assert "  158 unavailable" in shown
    assert "cls_to_cls" in shown
    assert "near-duplicates" in shown
    assert shown.count("    can be built: ") == 10
    # eli5-askh in random_to_random, the other two in noncls_to_cls and noncls_to_noncls
    assert shown.count("    gone from the Hub, to be built from a mirror only: eli5-") == 5
    assert "there are 1 of 45 sources and 1 of 10 targets" in shown  # cls_to_cls
    assert "or --replace eli5-askh=TASK (a study of its own; e.g. " in shown
    # what is not built is no fault; what cannot be read is
    (tmp_path / "ethos-race" / "ethos-race_16_13_dev.tsv").write_text("no tab\n")
    assert main(["doctor", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert "unavailable  ethos-race" in said.out
    assert said.err.strip().endswith(
        "1 task has broken files: ethos-race; build again what is broken"
    )


def test_a_run_that_is_terminated_says_how_to_go_on_and_ends_with_75(tmp_path: Path) -> None:
    names = [name for name, row in load_rows().items() if not row.per_label][:40]
    raw = mirror(tmp_path / "raw", *names)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mpt.gym", "build", "--jobs", "1"),
            *("--source", str(raw), "--out", str(tmp_path / "gym")),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (tmp_path / "gym").exists() or not any((tmp_path / "gym").glob("[a-z]*")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=500)
    assert process.returncode == 75
    assert b"interrupted: python -m mpt.gym has not finished; run it again" in told
    assert not list((tmp_path / "gym").glob(".building*"))
    assert build(raw, tmp_path / "gym") == 0
