"""``mpt significance``, ``python -m analysis significance``: text, JSON, files, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from drawn import labels, points, segments
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from analysis.__main__ import main
from analysis.significance.comparisons import Significance, read_significance
from analysis.significance.forest import draw_forest
from analysis.significance.tables import UPSTREAM
from mpt.cli.flags import Parser
from mpt.cli.main import main as mpt_main

FILES = {
    *("significance.md", "significance.csv", "significance-record.csv"),
    *("significance-views.csv", "significance.json", "significance.svg", "significance.png"),
}


def _run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["significance", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_the_text_says_unit_family_and_what_no_interval_holds_in_80_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, folder)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    flat = " ".join(out.split())
    assert UPSTREAM in flat
    assert "each task is one unit, its data seeds are averaged first" in flat
    assert "corrected by Holm for 10 comparisons" in flat
    assert "4 tasks 0.125, 12 tasks 0.000488" in flat
    block = out.split("\n\n")[0].splitlines()
    assert block[0] == "QA→QA, toy-model: 12 tasks × 5 data seeds"
    assert [line.split()[0] for line in block[2:]] == ["MAML", "−", "Reptile", "−", "MTL"]
    assert block[2].endswith(" higher (all)")
    assert "(paired)" in flat


def test_the_command_of_the_package_says_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert mpt_main(["significance", str(folder), "--json"]) == 0
    finally:
        Parser.command = ()
    assert capsys.readouterr().out == _run(capsys, folder, "--json")[1]


def test_json_holds_every_number_of_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _run(capsys, folder, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert (found["judged_by"], found["correction"]) == ("other_tasks", "Holm")
    assert found["table"]["size"] == len(found["table"]["comparisons"]) == 10
    first = found["table"]["comparisons"][0]
    view = first["views"]["other_tasks"]
    assert (first["method"], first["verdict"], first["tasks"]) == ("maml", "higher", 12)
    assert view["low"] < first["difference"] == view["value"] < view["high"]
    assert view["p"] <= view["p_holm"] <= 0.05
    assert first["table_2"] is None  # another backbone
    small = found["table"]["comparisons"][5]
    assert (small["partition"], small["views"]["other_tasks"]["low"]) == ("nonpara_to_para", None)


def test_the_same_scores_give_the_same_text_and_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = (_run(capsys, folder, "--out", tmp_path / name) for name in ("a", "b"))
    assert first[:2] == again[:2]
    assert first[2] == f"7 files → {tmp_path / 'a'}\n"
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_csv_and_the_text_agree_with_the_comparisons(folder: Path, tmp_path: Path) -> None:
    assert main(["significance", str(folder), "--out", str(tmp_path)]) == 0
    found = read_significance(folder, 42)
    one = found.table.of(found.settings[0], "maml", "multitask")
    assert one is not None
    rows = _rows(tmp_path / "significance.csv")
    row = rows[0]
    assert float(row["minus MTL"]) == one.value
    assert float(row["minus MTL low"]) == one.views["other_tasks"].low
    assert float(row["minus MTL, these tasks high"]) == one.views["these_tasks"].high
    assert len(rows) == 6
    views = _rows(tmp_path / "significance-views.csv")
    assert [row["family"] for row in views] == ["table"] * 10 + ["other pairs"] * 2
    assert float(views[1]["other_tasks p"]) == one.views["other_tasks"].p
    # a method has no difference to itself
    (mtl,) = (row for row in rows[:3] if row["method"] == "MTL")
    assert (mtl["minus MTL"], mtl["p, MTL"], mtl["against MTL"]) == ("", "", "")


def _marker(figure: object, gid: str) -> Line2D:
    (found,) = figure.findobj(lambda artist: artist.get_gid() == gid)  # type: ignore[attr-defined]
    assert isinstance(found, Line2D)
    return found


def _filled(line: Line2D) -> bool:
    return bool(to_hex(line.get_markerfacecolor()) == to_hex(line.get_color()))


def _found(folder: Path) -> Significance:
    return read_significance(folder, 42)


def test_the_figure_has_a_panel_a_setting_and_fills_what_is_different(folder: Path) -> None:
    found = _found(folder)
    figure = draw_forest(found)
    panels = figure.get_axes()
    assert [ax.get_title(loc="left") for ax in panels] == [
        "QA→QA, toy-model: 12 tasks",
        "NP→P, toy-model: 4 tasks",
    ]
    rows = ["MAML", "MAML − MTL", "Reptile", "Reptile − MTL", "MTL"]
    assert [labels(ax, "y") for ax in panels] == [rows, rows]
    filled = 0
    for one in found.table.comparisons:
        name = f"{one.setting.partition}:{one.method}:{one.reference}"
        line = _marker(figure, f"value:{name}")
        assert points(figure, f"value:{name}")[0][0] == one.value
        assert _filled(line) == (one.sign() != 0), name
        filled += one.sign() != 0
    assert 0 < filled < len(found.table.comparisons)


def test_the_figure_draws_the_interval_of_the_test_or_dots_that_of_t(folder: Path) -> None:
    found = _found(folder)
    figure = draw_forest(found)
    for one in found.table.comparisons:
        name = f"{one.setting.partition}:{one.method}:{one.reference}"
        large = len(one.differences) >= 6
        view = one.views["other_tasks" if large else "other_tasks_t"]
        ((start, end),) = segments(figure, f"{'interval' if large else 't'}:{name}")
        assert (start[0], end[0]) == (view.low, view.high)
        ((start, end),) = segments(figure, f"fixed:{name}")
        assert start[0] == one.views["these_tasks"].low
        assert not segments(figure, f"{'t' if large else 'interval'}:{name}")


def test_a_method_that_lacks_a_score_is_left_out_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "qa_to_qa.csv"
    gone = "maml,qa_to_qa,toy-model,task03,13"
    kept = [row for row in path.read_text().splitlines() if not row.startswith(gone)]
    path.write_text("\n".join(kept) + "\n")
    code, out, _ = _run(capsys, folder)
    assert code == 0
    assert "corrected by Holm for 8 comparisons" in " ".join(out.split())
    assert "QA→QA, toy-model: MAML: task03: method lacks data seed 13." in " ".join(out.split())


def test_a_file_is_read_like_a_folder_of_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, whole, _ = _run(capsys, folder / "qa_to_qa.csv")
    (folder / "nonpara_to_para.csv").unlink()
    assert _run(capsys, folder)[1] == whole


def test_what_cannot_be_compared_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for source in (empty, tmp_path / "none"):
        code, out, err = _run(capsys, source)
        assert (code, out) == (2, "")
        assert err == (
            f"error: DIR is {str(source)!r}, but must be a folder of *.csv files of scores\n"
        )
    shutil.copy(folder / "qa_to_qa.csv", folder / "twice.csv")
    code, _, err = _run(capsys, folder)
    assert code == 3
    assert "twice.csv: holds QA→QA, toy-model, which qa_to_qa.csv holds too" in err
    alone = tmp_path / "alone.csv"
    header = "method,partition,backbone,task,seed,test\n"
    alone.write_text(header + "pt,toy,t5,a,1,0.5\nmaml,toy,t5,b,1,0.5\n")
    code, _, err = _run(capsys, alone)
    assert code == 3
    assert "nothing to compare" in err
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_a_usage_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = _run(capsys, folder, "--out", blocked)
    assert code == 2
    assert f"--out {str(blocked)!r} cannot be written" in err
