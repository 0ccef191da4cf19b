"""Building: files, record, bad rows, resuming, kills, sizes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gym_rows
import pytest

from mpt.config import DATA_SEEDS
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import ALL_SHOTS, load_catalogue, missing_tasks
from mpt.gym.crossfit import build
from mpt.gym.crossfit.build import Plan, Report, build_all, build_task
from mpt.gym.crossfit.sources import Hub, Mirror
from mpt.gym.crossfit.tasks import load_rows
from mpt.gym.fewshot import available_seeds, load_task

Rows = list[dict[str, Any]]


def write_mirror(folder: Path, *names: str) -> Mirror:
    for name in names:
        row = load_rows()[name]
        for split in row.splits.names:
            write_split(folder, name, split, list(gym_rows.rows(row, split)))
    return Mirror(folder)


def write_split(folder: Path, name: str, split: str, rows: Rows) -> None:
    path = folder / name / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def plan(source: Mirror, out: Path, shots: int = 16, seeds: tuple[int, ...] = (13, 21)) -> Plan:
    return Plan(source, out, shots, seeds)


def run(names: list[str], what: Plan, jobs: int = 1) -> dict[str, Report]:
    return {report.task: report for report in build_all(names, what, jobs, lambda report: None)}


def statuses(reports: dict[str, Report]) -> list[str]:
    return [report.status for report in reports.values()]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


def test_a_built_task_is_read_back_and_its_record_says_where_it_came_from(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "rotten_tomatoes")
    out = tmp_path / "gym"
    assert run(["rotten_tomatoes"], plan(source, out))["rotten_tomatoes"].status == "built"
    record = json.loads((out / "rotten_tomatoes" / "provenance.json").read_text())
    assert record["raw_rows"] == {"train": 120, "validation": 60}
    assert record["lines"] == {"train pool": 120, "test": 60}
    assert record["seeds"] == [13, 21]
    assert record["shots"] == 16
    assert record["builder_version"] == build.BUILDER_VERSION
    assert record["source"] == str(tmp_path / "raw" / "rotten_tomatoes")
    assert record["revision"].startswith("sha256:")
    assert len(record["files"]) == 6
    assert len(record["digest"]) == 64
    assert record["licence"] is None
    assert sorted(path.name for path in out.iterdir()) == ["rotten_tomatoes"]


def test_a_written_gym_is_what_the_reader_reads(tmp_path: Path) -> None:
    row = load_rows()["wino_grande"]
    rows = [
        {"sentence": f"s {n}", "option1": "a", "option2": "b", "answer": "12"[n % 2]}
        for n in range(80)
    ]
    for split in row.splits.names:
        write_split(tmp_path / "raw", "wino_grande", split, rows)
    out = tmp_path / "gym"
    run(["wino_grande"], plan(Mirror(tmp_path / "raw"), out))
    info = load_catalogue(out).tasks["wino_grande"]
    assert available_seeds(out, info) == (13, 21)
    task = load_task(out, info, 13)
    assert (len(task.train), len(task.dev), len(task.test)) == (32, 32, 80)
    assert task.test[1].input == "s 1 (A) a (B) b"
    assert task.test[1].outputs == ("b",)
    assert missing_tasks(out, ["wino_grande"], (13, 21)) == {}


def bad(change: Callable[[Rows], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        row = load_rows()["rotten_tomatoes"]
        rows = list(gym_rows.rows(row, "train"))
        change(rows)
        write_split(folder, "rotten_tomatoes", "train", rows)

    return write


def raw_text(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "rotten_tomatoes" / "train.jsonl").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad(lambda rows: rows[6].pop("text")), r"split train, row 7: field 'text' is missing"),
        (bad(lambda rows: rows[6].pop("label")), r"split train, row 7: field 'label' is missing"),
        (bad(lambda rows: rows[6].update(label=2)), r"row 7: unknown label id 2 .*ids are 0 to 1"),
        (bad(lambda rows: rows[6].update(label=-1)), r"row 7: unknown label id -1"),
        (bad(lambda rows: rows[6].update(label=None)), r"row 7: field 'label' is None"),
        (bad(lambda rows: rows[6].update(text=None)), r"row 7: field 'text' is null"),
        (bad(lambda rows: rows[6].update(text=["x"])), r"row 7: field 'text' is \['x'\]"),
        (
            bad(lambda rows: rows[6].update(text="\ud800")),
            r"split train, row 7: .* is half a surrogate pair",
        ),
        (bad(lambda rows: rows.clear()), r"split train: the split is empty"),
        (
            bad(lambda rows: [row.update(label=int(n < 31)) for n, row in enumerate(rows)]),
            r"split train: class 'positive' has 31 rows .* need 32",
        ),
        (raw_text(b'{"text": "x", "label": 0}\nnonsense\n'), r"train\.jsonl:2: not JSON in UTF-8"),
        (raw_text(b'{"text": "x\xff", "label": 0}\n'), r"train\.jsonl:1: not JSON in UTF-8"),
        (raw_text(b'["x", 0]\n'), r"train\.jsonl:1: a row must be a JSON object"),
        (raw_text(b'{"text": "x", "label": 0}\n\n'), r"train\.jsonl:2: not JSON"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_written(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    source = write_mirror(tmp_path / "raw", "rotten_tomatoes", "xsum")
    spoil(tmp_path / "raw")
    out = tmp_path / "gym"
    reports = run(["rotten_tomatoes", "xsum"], plan(source, out))
    assert reports["rotten_tomatoes"].status == "failed"
    assert re.search(message, reports["rotten_tomatoes"].note), reports["rotten_tomatoes"].note
    assert "rotten_tomatoes" in reports["rotten_tomatoes"].note
    assert reports["xsum"].status == "built"
    assert sorted(path.name for path in out.iterdir()) == ["unavailable.json", "xsum"]


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("ai2_arc", {"answerKey": "Z"}, r"field 'answerKey' is 'Z', but options are \['"),
        ("ai2_arc", {"choices": {"text": ["x"], "label": []}}, "one letter for each of 1 options"),
        ("swag", {"label": 4}, r"field 'label' is 4, but must be 0 to 3"),
        ("swag", {"label": -1}, r"field 'label' is -1, but must be 0 to 3"),
        ("swag", {"label": "x"}, r"field 'label' is 'x', but must be a whole number"),
        ("swag", {"ending2": 5}, r"must be a list of texts"),
        ("social_i_qa", {"label": "4"}, r"field 'label' is '4', but must be 1 to 3"),
        ("wino_grande", {"answer": ""}, r"field 'answer' is '', but must be a whole number"),
        ("quarel", {"question": "no options"}, r"must hold \(A\) and \(B\)"),
        ("aqua_rat", {"correct": "F"}, r"field 'correct' is 'F'"),
        ("math_qa", {"options": "a , b"}, r"five parts"),
        ("math_qa", {"correct": "f"}, r"field 'correct' is 'f'"),
        ("qa_srl", {"answers": "one text"}, r"field 'answers' must be a list of texts"),
        (
            "limit",
            {"motion_entities": [{"x": "y"}], "motion": "yes"},
            r"'motion_entities.entity' is",
        ),
        ("common_gen", {"concept_set_idx": None, "concepts": "x"}, r"must be a list of texts"),
        ("superglue-multirc", {"idx": {}}, r"field 'idx.question' is missing"),
    ],
)
def test_rows_that_break_a_rule_of_their_task_are_named(
    tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    source = write_mirror(tmp_path / "raw", task)
    split = load_rows()[task].splits.names[0]
    rows = list(gym_rows.rows(load_rows()[task], split))
    rows[2] = {**rows[2], **change}
    write_split(tmp_path / "raw", task, split, rows)
    with pytest.raises(DataError, match=rf"task {task}, split {split}, row .*{message}"):
        build_task(load_rows()[task], plan(source, tmp_path / "gym"))
    assert not (tmp_path / "gym").exists()


def test_labels_that_the_original_marks_missing_are_dropped_in_both_forms(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "health_fact")
    built = []
    for missing in (-1, None):
        rows = list(gym_rows.rows(load_rows()["health_fact"], "train"))
        rows = [{**row, "label": missing if row["label"] == -1 else row["label"]} for row in rows]
        write_split(tmp_path / "raw", "health_fact", "train", rows)
        out = tmp_path / f"gym {missing}"
        run(["health_fact"], plan(source, out))
        built.append(snapshot(out))
    assert built[0] == built[1]


def test_the_columns_of_today_are_mapped_by_name(tmp_path: Path) -> None:
    row = load_rows()["trec"]
    assert row.label is not None
    assert row.label_today is not None
    source = write_mirror(tmp_path / "raw", "trec")
    run(["trec"], plan(source, tmp_path / "old"))
    rows = [
        {
            "text": raw["text"],
            "coarse_label": row.label_today.words.index(row.label.words[raw["label-coarse"]]),
        }
        for raw in gym_rows.rows(row, "train")
    ]
    write_split(tmp_path / "raw", "trec", "train", rows)
    run(["trec"], plan(source, tmp_path / "new"))
    assert snapshot(tmp_path / "old") == snapshot(tmp_path / "new")


def test_the_47_fine_labels_are_the_50_of_today_without_their_prefix() -> None:
    row = load_rows()["trec-finegrained"]
    assert row.label is not None
    assert row.label_today is not None
    assert len(row.label.words) == 47
    assert len(row.label_today.words) == 50
    assert set(row.label.words) == set(row.label_today.words)


def test_a_second_run_keeps_what_is_there_and_a_changed_source_or_file_is_built_again(
    tmp_path: Path,
) -> None:
    source = write_mirror(tmp_path / "raw", "rotten_tomatoes", "xsum")
    out = tmp_path / "gym"
    what = plan(source, out)
    names = ["rotten_tomatoes", "xsum"]
    first = run(names, what)
    before = snapshot(out)
    assert {report.status for report in first.values()} == {"built"}
    assert {report.status for report in run(names, what).values()} == {"kept"}
    file = out / "xsum" / "xsum_32_13_dev.tsv"
    file.write_bytes(file.read_bytes()[:-1])
    assert statuses(run(names, what)) == ["kept", "built"]
    assert snapshot(out) == before
    rows = list(gym_rows.rows(load_rows()["xsum"], "train"))
    write_split(tmp_path / "raw", "xsum", "train", rows[1:])
    assert statuses(run(names, what)) == ["kept", "built"]
    assert snapshot(out) != before


def test_a_finished_hub_task_is_kept_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    hub = Hub()
    monkeypatch.setattr(Hub, "open", lambda self, task: source.open(task))
    what = Plan(hub, tmp_path / "gym", 16, (13,))
    assert statuses(run(["xsum"], what)) == ["built"]

    def unreachable(self: Hub, task: object) -> None:
        raise DataError("asked")

    monkeypatch.setattr(Hub, "open", unreachable)
    assert statuses(run(["xsum"], what)) == ["kept"]


def test_more_seeds_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    out = tmp_path / "gym"
    run(["xsum"], plan(source, out, seeds=(13,)))
    assert run(["xsum"], plan(source, out, seeds=(21,)))["xsum"].status == "built"
    assert available_seeds(out, load_catalogue(out).tasks["xsum"]) == (13, 21)
    assert run(["xsum"], plan(source, out, seeds=(13,)))["xsum"].status == "kept"


def test_the_digest_of_a_row_is_the_same_in_every_process() -> None:
    script = (
        "from mpt.gym.crossfit.tasks import load_rows; import hashlib;"
        "print(hashlib.sha256(repr(list(load_rows().values())).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1


def test_files_of_others_are_never_overwritten(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    out = tmp_path / "gym"
    (out / "xsum").mkdir(parents=True)
    (out / "xsum" / "xsum_32_13_dev.tsv").write_text("mine\ttext\n")
    report = run(["xsum"], plan(source, out))["xsum"]
    assert report.status == "failed"
    assert "holds files that this command did not build" in report.note
    assert (out / "xsum" / "xsum_32_13_dev.tsv").read_text() == "mine\ttext\n"


def test_a_failed_task_is_noted_until_it_is_built(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    good = (tmp_path / "raw" / "xsum" / "train.jsonl").read_bytes()
    (tmp_path / "raw" / "xsum" / "train.jsonl").unlink()
    out = tmp_path / "gym"
    run(["xsum"], plan(source, out))
    noted = json.loads((out / "unavailable.json").read_text())
    assert "task xsum, split train: the mirror has no file" in noted["xsum"]
    (tmp_path / "raw" / "xsum" / "train.jsonl").write_bytes(good)
    run(["xsum"], plan(source, out))
    assert not (out / "unavailable.json").exists()


def test_two_processes_build_the_same_bytes_as_one(tmp_path: Path) -> None:
    names = ["rotten_tomatoes", "xsum", "sciq"]
    source = write_mirror(tmp_path / "raw", *names)
    one, two = tmp_path / "one", tmp_path / "two"
    run(names, plan(source, one), jobs=1)
    assert list(run(names, plan(source, two), jobs=2)) == names
    assert snapshot(one) == snapshot(two)


def test_a_worker_that_dies_is_told_with_a_cure(tmp_path: Path) -> None:
    reports = run(["xsum", "sick"], Plan(gym_rows.Deadly(), tmp_path / "gym", 16, (13,)), jobs=2)
    assert statuses(reports) == ["failed", "failed"]
    for name, report in reports.items():
        assert report.note.startswith(f"task {name}: its process ended early")
        assert report.note.endswith("--jobs 1: finished tasks are kept")


def test_a_failure_while_writing_leaves_nothing_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    out = tmp_path / "gym"
    write = build._write

    def full_disk(path: Path, content: bytes) -> None:
        if path.name == "xsum_32_21_test.tsv":
            write(path, content[:100])
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(build, "_write", full_disk)
    report = run(["xsum"], plan(source, out))["xsum"]
    assert report.status == "failed"
    assert "No space left on device" in report.note
    assert not (out / "xsum").exists()
    assert [path.name for path in out.iterdir()] == ["unavailable.json"]


def test_a_run_killed_at_any_moment_leaves_whole_tasks_and_the_next_run_finishes(
    tmp_path: Path,
) -> None:
    names = ["rotten_tomatoes", "xsum", "sciq", "swag", "sick", "emo", "dream", "quail"]
    source = write_mirror(tmp_path / "raw", *names)
    out = tmp_path / "gym"
    script = (
        "import sys; from pathlib import Path; from mpt.gym.crossfit.build import *;"
        "from mpt.gym.crossfit.sources import Mirror;"
        f"build_all({names!r}, Plan(Mirror(Path(sys.argv[1])), Path(sys.argv[2]), 16, (13, 21)),"
        "1, lambda r: print(r.task, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "raw"), str(out)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = [name for name in names if (out / name).exists()]
    assert 3 <= len(done) <= len(names)
    for name in done:
        record = json.loads((out / name / "provenance.json").read_text())
        assert not build.changed_files(out / name, record)
    reports = run(names, plan(source, out))
    assert [reports[name].status for name in done] == ["kept"] * len(done)
    assert {path.name for path in out.iterdir()} == set(names)


def test_what_a_killed_run_left_between_its_renames_is_restored(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    out = tmp_path / "gym"
    run(["xsum"], plan(source, out))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (out / "xsum").rename(out / f".replaced~xsum~{socket.gethostname()}~{process.pid}")
    (out / f".building~sick~{socket.gethostname()}~{process.pid}").mkdir()
    (out / f".building~emo~{socket.gethostname()}~{os.getpid()}").mkdir()  # alive: left alone
    assert run(["xsum"], plan(source, out))["xsum"].status == "kept"
    hidden = [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert hidden == [f".building~emo~{socket.gethostname()}~{os.getpid()}"]


def test_more_shots_have_their_own_names_and_a_catalogue_that_knows_them(tmp_path: Path) -> None:
    names = ["rotten_tomatoes", "xsum"]
    for split in ("train", "validation"):
        rows: Rows = [{"text": f"t {n}", "label": n % 2} for n in range(130)]
        write_split(tmp_path / "raw", "rotten_tomatoes", split, rows)
        rows = [{"document": f"d {n}", "summary": f"s {n}"} for n in range(130)]
        write_split(tmp_path / "raw", "xsum", split, rows)
    source = Mirror(tmp_path / "raw")
    for shots, files in (
        (32, ("rotten_tomatoes_32_13_dev.tsv", "xsum_32_13_dev.tsv")),
        (64, ("rotten_tomatoes_64_13_dev.tsv", "xsum_64_13_dev.tsv")),
        (ALL_SHOTS, ("rotten_tomatoes_all_13_dev.tsv", "xsum_all_13_dev.tsv")),
    ):
        out = tmp_path / f"gym {shots}"
        run(names, plan(source, out, shots))
        for name, file in zip(names, files, strict=True):
            assert (out / name / file).is_file()
        catalogue = load_catalogue(out)
        assert len(catalogue.tasks) == 160
        assert catalogue.partitions == load_catalogue(None).partitions
        assert catalogue.source_subsets == load_catalogue(None).source_subsets
        assert missing_tasks(out, names, (13, 21)) == {}
        assert len(load_task(out, catalogue.tasks["xsum"], 13).train) == min(shots or 999, 65)


def test_a_gym_has_one_size(tmp_path: Path) -> None:
    source = write_mirror(tmp_path / "raw", "xsum")
    out = tmp_path / "gym"
    run(["xsum"], plan(source, out))
    with pytest.raises(UsageError, match=r"--shots 64: .* holds xsum at 16 shots"):
        run(["xsum"], plan(source, out, 64))
    own = tmp_path / "own"
    own.mkdir()
    (own / "gym.toml").write_text("# mine\n")
    for shots in (16, 64):
        with pytest.raises(UsageError, match=r"gym\.toml is the catalogue of another gym"):
            run(["xsum"], plan(source, own, shots))
    assert (own / "gym.toml").read_text() == "# mine\n"


def test_short_classes_and_lines_with_a_tab_inside_are_reported(tmp_path: Path) -> None:
    row = load_rows()["superglue-cb"]
    rows: Rows = [
        {"premise": f"p {n}", "hypothesis": "h", "label": n % 2 if n >= 10 else 2}
        for n in range(100)
    ]
    rows[50]["premise"] = "tab\there"
    for split in row.splits.names:
        write_split(tmp_path / "raw", "superglue-cb", split, rows)
    note = run(["superglue-cb"], plan(Mirror(tmp_path / "raw"), tmp_path / "gym"))[
        "superglue-cb"
    ].note
    assert "neutral 10" in note
    assert "2 lines hold a tab or newline inside their text" in note


def test_100_000_rows_take_at_most_60_seconds_and_one_gibibyte(tmp_path: Path) -> None:
    rows = 100_000
    lines = (
        json.dumps({"text": f"row {n} " + "word " * 60, "label": n % 2}) + "\n"
        for n in range(rows)
    )
    folder = tmp_path / "raw" / "rotten_tomatoes"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(lines))
    write_split(tmp_path / "raw", "rotten_tomatoes", "validation", [{"text": "x", "label": 0}])
    script = (
        "import re, resource, sys; from pathlib import Path; from mpt.gym.crossfit.build import *;"
        "from mpt.gym.crossfit.sources import Mirror;"
        "from mpt.gym.crossfit.tasks import load_rows;"
        "build_task(load_rows()['rotten_tomatoes'],"
        f"Plan(Mirror(Path(sys.argv[1])), Path(sys.argv[2]), 16, {DATA_SEEDS!r}));"
        "used = resource.getrusage(resource.RUSAGE_SELF);"
        # not ru_maxrss: it counts what this process held before it became that one
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1];"
        "print(peak, used.ru_utime + used.ru_stime)"
    )
    (tmp_path / "gym").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "raw"), str(tmp_path / "gym")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, seconds = map(float, done.stdout.split())
    assert seconds <= 60  # of the processor: the machine may be busy with other things
    assert peak <= 2**20  # KiB
