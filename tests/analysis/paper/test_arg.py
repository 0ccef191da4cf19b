"""``python -m analysis arg``: published cells from recorded scores, every rule of the reader."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from results_factory import Results, flat

from analysis.__main__ import main
from analysis.results.reading import read_results

HEADER = "method,partition,backbone,task,seed,test"
PUBLISHED = Path(__file__).resolve().parents[3].parent / "shared" / "scores"
"""The authors' recorded scores, where there is a copy of them beside the checkout."""
TABLE_2 = {
    "nonpara_to_para": {
        "MAML": 11.14, "FoMAML": -0.68, "Reptile": 20.44, "MTL": -5.19, "FT": 1.56,
    },
    "cls_to_noncls": {"MAML": 0.32, "FoMAML": 6.42, "Reptile": -1.54, "MTL": 8.51},
    "both_to_noncls": {"MAML": 7.54, "FoMAML": 9.81, "Reptile": -3.38, "MTL": 13.47},
    "noncls_to_noncls": {"MAML": 6.71, "FoMAML": 3.88, "Reptile": 0.78, "MTL": 19.67},
    "qa_to_qa": {"MAML": -16.59, "FoMAML": 16.63, "Reptile": 0.77, "MTL": 25.65, "FT": -47.37},
    "nonqa_to_qa": {"FoMAML": 9.83, "Reptile": -0.09, "MTL": 17.23, "FT": -47.37},
}  # fmt: skip
"""Printed cells that the authors' recorded scores reproduce."""


def _lines(*rows: str, header: str = HEADER) -> str:
    return "\n".join((header, *rows)) + "\n"


def _row(method: str, task: str, seed: int, test: float | str) -> str:
    return f"{method},toy,t5,{task},{seed},{test}"


GOOD = [
    _row(method, task, seed, test)
    for method, tests in {"pt": (0.5, 0.4), "maml": (0.6, 0.2)}.items()
    for task, test in zip("ab", tests, strict=True)
    for seed in (13, 21)
]


def _arg(
    tmp_path: Path, content: str | bytes, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, str, str]:
    path = tmp_path / "scores.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    code = main(["arg", "--scores", str(path), *more])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def _rows(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output)))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no recorded scores at {PUBLISHED}")
@pytest.mark.parametrize("partition", sorted(TABLE_2))
def test_recorded_scores_give_the_printed_cells_of_table_2(
    partition: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = PUBLISHED / f"{partition}.csv"
    assert main(["arg", "--scores", str(path), "--partition", partition, "--format", "csv"]) == 0
    rows = {row["method"]: row for row in _rows(capsys.readouterr().out)}
    for method, printed in TABLE_2[partition].items():
        assert f"{float(rows[method]['ARG %']):.2f}" == f"{printed:.2f}"
        assert rows[method]["status"] == "reproduced"
        assert float(rows[method]["ARG % low"]) < printed < float(rows[method]["ARG % high"])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no recorded scores at {PUBLISHED}")
def test_the_fine_tuning_cell_that_the_recorded_scores_contradict_is_called_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # README of the scores: they give −40.38, the paper prints −35.70
    main(["arg", "--scores", str(PUBLISHED / "both_to_noncls.csv"), "--format", "csv"])
    row = _rows(capsys.readouterr().out)[-1]
    assert (row["method"], row["Table 2"], row["status"]) == ("FT", "-35.7", "contradicted")
    assert f"{float(row['ARG %']):.2f}" == "-40.38"
    assert row["near zero"] == "break-QDMR"


def test_arg_is_the_mean_relative_gain_over_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # (0.6 − 0.5) / 0.5 = +20 %, (0.2 − 0.4) / 0.4 = −50 %
    code, out, _ = _arg(tmp_path, _lines(*GOOD), capsys, "--format", "csv")
    row = _rows(out)[0]
    assert code == 0
    assert float(row["ARG %"]) == pytest.approx(-15.0, rel=1e-12)
    assert (row["method"], row["ARG % runs"], row["tasks with RG"]) == ("MAML", "4", "2/2")
    assert float(row["over tasks low"]) == pytest.approx(-50.0, rel=1e-12)
    assert float(row["median RG %"]) == pytest.approx(-15.0, rel=1e-12)


def test_other_columns_their_order_and_a_byte_order_mark_do_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"x,{','.join(reversed(row.split(',')))}" for row in GOOD]
    content = _lines(*rows, "", header=f"dev,{','.join(reversed(HEADER.split(',')))}")
    plain = _arg(tmp_path, _lines(*GOOD), capsys)
    assert _arg(tmp_path, b"\xef\xbb\xbf" + content.encode(), capsys) == plain


@pytest.mark.parametrize("ending", ["md", "csv", "tex", "html"])
def test_every_format_shows_the_number(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _arg(tmp_path, _lines(*GOOD), capsys, "--format", ending)
    assert code == 0
    assert "15.0" in out


def test_a_missing_score_leaves_its_task_out_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # an empty test and an absent line say the same
    empty = [row.replace("0.2", "") if row.startswith("maml,toy,t5,b,13") else row for row in GOOD]
    absent = [row for row in GOOD if not row.startswith("maml,toy,t5,b,13")]
    for rows in (empty, absent):
        code, out, _ = _arg(tmp_path, _lines(*rows), capsys)
        assert code == 0
        assert "| MAML | 20.00‡ [20.00, 20.00] 3/4 |" in out
        assert "1/2" in out
        assert "b: method lacks data seed 13" in out


def test_a_task_that_the_method_does_not_have_at_all_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in GOOD if not row.startswith("maml,toy,t5,b")]
    _, out, _ = _arg(tmp_path, _lines(*rows), capsys)
    assert "20.00‡ [20.00, 20.00] 2/4" in out
    assert "b: method lacks data seed 13, 21" in out


@pytest.mark.parametrize("baseline", [0.0, -0.2])
def test_a_baseline_that_is_not_positive_has_no_gain_and_is_named(
    baseline: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row.replace("0.4", str(baseline)) if row.startswith("pt,toy,t5,b") else row for row in GOOD
    ]
    code, out, _ = _arg(tmp_path, _lines(*rows), capsys)
    assert code == 0
    assert "20.00‡" in out
    assert f"b: the baseline scores {baseline:g}, a relative gain needs more than 0" in out


def test_one_data_seed_gives_a_number_that_is_marked_to_have_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in GOOD if ",13," in row]
    _, out, _ = _arg(tmp_path, _lines(*rows), capsys)
    assert "| MAML | −15.00° 2/2 |" in out


def test_a_hostile_task_name_stays_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row.replace(",b,", ",<script>x</script>,").replace("0.4", "0") for row in GOOD]
    _, out, _ = _arg(tmp_path, _lines(*rows), capsys, "--format", "html")
    assert "<script" not in out
    assert "&lt;script&gt;" in out


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", 1, "no column 'method'"),
        (_lines(*GOOD).replace("seed", "sead", 1), 1, "no column 'seed'"),
        (_lines(header=HEADER + ",test"), 1, "more than one column 'test'"),
        (_lines(*GOOD, "maml,toy"), 10, "has 2 fields, but the header 6"),
        (_lines(*GOOD, _row("pt", "c", 13, "nan")), 10, "test is 'nan', but must be a finite"),
        (_lines(*GOOD, _row("pt", "c", 13, "inf")), 10, "test is 'inf', but must be a finite"),
        (_lines(*GOOD, _row("pt", "c", 13, "good")), 10, "test is 'good', but must be a finite"),
        (_lines(*GOOD, _row("pt", "c", 13, 53.2)), 10, "must be a fraction in [-1, 1]"),
        (_lines(*GOOD, "pt,toy,t5,c,13.5,0.5"), 10, "seed is '13.5'"),
        (_lines(*GOOD, "pt,toy,t5,,13,0.5"), 10, "task is empty"),
        (_lines(*GOOD, GOOD[0]), 10, "repeats line 2 (prompt_tuning of a, data seed 13, on toy)"),
        (_lines(*GOOD, _row("pt", "a", 13, 0.7)), 10, "contradicts line 2"),
        (_lines(*GOOD, 'pt,toy,t5,"c" d,13,0.5'), 10, "not a line of CSV"),
        (_lines(*GOOD).encode() + b"pt,toy,t5,\xff,13,0.5\n", 10, "not UTF-8"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_an_error_with_file_and_line(
    content: str | bytes,
    line: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = _arg(tmp_path, content, capsys)
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {tmp_path / 'scores.csv'}:{line}: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no scores"),
        ([row for row in GOOD if row.startswith("maml")], "has no score of the baseline"),
        ([row for row in GOOD if row.startswith("pt")], "has no method beside the baseline"),
    ],
)
def test_a_file_that_lacks_a_side_of_the_comparison_is_bad_data(
    rows: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = _arg(tmp_path, _lines(*rows), capsys)
    assert code == 3
    assert message in err


def test_an_absent_file_partition_or_flag_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["arg", "--scores", str(tmp_path / "none.csv")]) == 2
    assert "is not a file" in capsys.readouterr().err
    code, _, err = _arg(tmp_path, _lines(*GOOD), capsys, "--partition", "cls_to_cls")
    assert code == 2
    assert "'cls_to_cls' is not in" in err
    assert err.endswith("; there are toy\n")
    assert main(["arg", "--scors", "x"]) == 2
    assert main([]) == 2


def test_a_database_has_a_row_a_target_cell_and_a_table_a_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path)
    baseline = flat({"a": 0.5})
    for method, partition, study in (
        ("my_method", "cls_to_cls", {}),
        ("maml", "qa_to_qa", {}),
        ("maml", "cls_to_cls", {}),
        ("maml", "cls_to_cls", {"smoke": True}),
    ):
        results.point(method, partition, flat({"a": 0.6}), baseline, **study)
    results.point("maml", "cls_to_cls", flat({"a": 0.6}), baseline, role="validation")
    assert main(["arg", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    real, smoke = read_results(tmp_path).sections
    titles = [line for line in out.splitlines() if line.startswith("### ")]
    assert titles == [f"### ARG over prompt tuning – {one.label}" for one in (real, smoke)]
    words = ["arg", "--results", str(tmp_path), "--study", real.id, "--format", "csv"]
    assert main(words) == 0
    rows = _rows(capsys.readouterr().out)
    assert [(row["partition"], row["method"]) for row in rows] == [
        ("Cls→Cls", "MAML"),
        ("Cls→Cls", "my_method"),
        ("QA→QA", "MAML"),
    ]
    assert [float(row["ARG %"]) for row in rows] == pytest.approx([20.0] * 3, rel=1e-9)
    assert rows[0]["status"] == "not attempted (run on embedded, not on T5-large)"
    assert main([*words, "--partition", "qa_to_qa"]) == 0
    assert len(_rows(capsys.readouterr().out)) == 1


def test_arg_reads_one_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--scores", "a.csv", "--results", str(tmp_path)]):
        assert main(["arg", *words]) == 2
        assert "either --scores FILE or --results DIR" in capsys.readouterr().err
