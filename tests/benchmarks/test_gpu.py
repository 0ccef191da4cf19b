from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from gpu import SECTIONS, TOY, Plan, section, tf32

from mpt.downstream import probe

ENGINES = {"finite difference", "exact", "unrolled", "higher"}


@pytest.fixture(scope="module")
def document(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All sections but the one that starts Ray, and the one that compiles for a minute."""
    path = tmp_path_factory.mktemp("gpu") / "found.json"
    flags = ["--toy", "--backbone", str(toy_checkpoint), "--json", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "MOST_ROWS", 8)
        gpu.main([*flags, "--only", *(set(SECTIONS) - {"search", "compile"})])
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _found(document: dict[str, Any], name: str) -> Any:
    return document["sections"][name]["found"]


def test_the_document_says_when_and_on_what_it_was_made(document: dict[str, Any]) -> None:
    assert document["device"] == "CPU"
    assert document["versions"]["torch"] == torch.__version__
    assert document["time"].endswith("+00:00")
    assert document["plan"]["runs"] == list(TOY.runs)


def test_every_pack_has_rate_efficiency_and_memory(document: dict[str, Any]) -> None:
    (cells,) = _found(document, "packing").values()
    assert [cell["runs"] for cell in cells] == [None, 1, 3]
    for cell in cells[1:]:
        assert cell["rate"]["median"] > 0
        assert cell["efficiency"] > 0
        assert isinstance(cell["bytes"], int)


def test_the_probe_stands_beside_the_truth(document: dict[str, Any]) -> None:
    found = _found(document, "probe")
    (one,) = found["passes"]
    assert min(one["probe"], one["shapes"]) > 0
    # the probe's line through one and two rows, and the count on shapes, are of the same tensors
    assert one["probe"] == pytest.approx(one["shapes"], rel=0.5)
    assert found["largest_pass_ran"]


def test_engines_of_the_second_order_agree(document: dict[str, Any]) -> None:
    rows = {row["engine"]: row for row in _found(document, "meta_step")}
    for name in ENGINES:
        assert rows[name]["off"] < 1e-2, rows[name]
    assert rows["unrolled"]["off"] == 0
    assert all(row["seconds"] > 0 for row in rows.values())
    assert "off" not in rows["fomaml"]


def test_steps_with_shared_passes_stand_beside_steps_apart(document: dict[str, Any]) -> None:
    rows = _found(document, "shared")
    assert [(row["method"], row["items"]) for row in rows] == [
        ("maml, unrolled", 2),
        ("fomaml", 2),
        ("path", 2),
    ]
    for row in rows:
        assert row["ratio"]["median"] == pytest.approx(row["shared_s"] / row["apart_s"])


def test_pefts_runs_stand_beside_ours(document: dict[str, Any]) -> None:
    found = _found(document, "peers")
    assert found["agreement"]["peft"]["runs"] == len(found["downstream"]["lrs"]) == 4
    seconds = found["seconds_of_a_run"]
    ratio = seconds["peft"]["clock"][0] / seconds["prepend"]["clock"][0]
    assert found["ratios"]["peft / prepend"]["clock"] == [pytest.approx(ratio)]


def test_fine_tuning_is_timed_with_and_without_tf32(document: dict[str, Any]) -> None:
    found = _found(document, "tf32")
    assert found["float32"]["loss"] == pytest.approx(found["tf32"]["loss"], rel=1e-2)
    assert found["ratio"] > 0
    assert set(_found(document, "matrix")) == {"float32", "tf32", "bfloat16"}


def test_tf32_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_section_that_fails_is_written_down_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(plan: Plan) -> None:
        raise ValueError("no such kernel")

    monkeypatch.setitem(gpu.SECTIONS, "packing", broken)
    path = tmp_path / "found.json"
    with pytest.raises(SystemExit, match="1"):
        gpu.main(["--toy", "--json", str(path), "--only", "packing", "matrix"])
    found = json.loads(path.read_text())["sections"]
    assert found["packing"]["error"] == "ValueError: no such kernel"
    assert found["matrix"]["found"]["float32"] > 0


def test_no_section_is_begun_after_the_time() -> None:
    assert section(SECTIONS["search"], TOY, 0.0) == {
        "seconds": 0.0,
        "skipped": "the time was over",
    }


def test_without_a_gpu_the_full_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device is there; --toy runs the sections"):
        gpu.main([])


# the compiler of torch 2.13 warns of what it does itself
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_the_smoke_search_and_the_compiler_run_too(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    gpu.main(["--toy", "--json", str(path), "--only", "search", "compile"])
    found = json.loads(path.read_text())
    assert _found(found, "search")["seconds"] > 0
    (gain,) = _found(found, "compile")
    assert gain["gain"]["median"] > 0
