"""Exports, each read back by the program that it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import torch
from results_factory import ORIGIN, Results, flat
from safetensors.torch import load_file
from toy_backbones import FAMILIES
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from analysis.__main__ import main
from mpt.backbones import load_backbone
from mpt.prompts import save_prompt

PT = flat({"a": 0.5})
P = 4


def _scores(gain: float) -> dict[str, dict[int, float]]:
    return flat({"a": 0.5 * (1 + gain / 100)})


def _search(root: Path) -> Results:
    """Two trajectories with two rungs each; the second diverges at its second rung."""
    results = Results(root)
    for at, (lr, rungs) in enumerate(((1.0, {50: 5.0, 100: 9.0}), (30.0, {50: -8.0}))):
        body: dict[str, Any] = {
            "role": "validation",
            "trajectory": f"t{at}",
            "config": {"method": "maml", "inner_lr": lr, "outer_lr": 0.1, "order": "auto"},
        }
        for steps, gain in rungs.items():
            results.point("maml", "random_to_random", _scores(gain), PT, steps=steps, **body)
    results.point(
        "maml", "random_to_random", {}, {}, steps=100, status="diverged", note="nan", **body
    )
    return results


@pytest.mark.parametrize("name", ["search.db", "search.log"])
def test_optuna_reads_the_points_of_a_search(name: str, tmp_path: Path) -> None:
    results = _search(tmp_path / "results")
    out = tmp_path / "new" / name
    assert main(["export", "optuna", "--results", str(results.root), "--out", str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == [name]
    storage: Any
    if name.endswith(".db"):
        storage = optuna.storages.RDBStorage(f"sqlite:///{out}")
    else:
        backend = optuna.storages.journal.JournalFileBackend(str(out))
        storage = optuna.storages.JournalStorage(backend)
    (study,) = (optuna.load_study(study_name=None, storage=storage),)
    assert study.study_name == "maml on random_to_random (embedded, gym embedded; validation)"
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    found = {(t.params["inner_lr"], t.params["steps"]): t for t in study.trials}
    values = {at: trial.value for at, trial in found.items()}
    assert values == {
        (1.0, 50): pytest.approx(5.0), (1.0, 100): pytest.approx(9.0),
        (30.0, 50): pytest.approx(-8.0), (30.0, 100): None,
    }  # fmt: skip
    assert study.best_params == {"inner_lr": 1.0, "steps": 100}  # what never differs is no param
    assert found[1.0, 100].intermediate_values == {
        50: pytest.approx(5.0), 100: pytest.approx(9.0),
    }  # fmt: skip
    assert found[1.0, 50].intermediate_values == {50: pytest.approx(5.0)}
    failed = found[30.0, 100]
    assert failed.state == optuna.trial.TrialState.FAIL
    assert (failed.user_attrs["status"], failed.user_attrs["note"]) == ("diverged", "nan")
    assert found[1.0, 50].distributions == {
        "inner_lr": optuna.distributions.FloatDistribution(1.0, 30.0, log=True),
        "steps": optuna.distributions.IntDistribution(50, 100),
    }
    if name.endswith(".db"):
        storage.remove_session()
        storage.engine.dispose()


def test_a_point_with_a_missing_leaf_has_failed_and_a_stopped_one_is_pruned(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    for status in ("ok", "stopped"):
        results.point(
            "maml", "cls_to_cls", _scores(1), PT, role="validation", status=status,
            trajectory=status, config={"inner_lr": status},
        )  # fmt: skip
    leaves = sorted((results.root / "leaves").rglob("*.json"))
    taken = {row["key"] for row in _rows(tmp_path, results) if row["init"].startswith("ok")}
    next(path for path in leaves if path.stem in taken).unlink()
    out = tmp_path / "a.log"
    assert main(["export", "optuna", "--results", str(results.root), "--out", str(out)]) == 0
    backend = optuna.storages.journal.JournalFileBackend(str(out))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    states = {trial.params["inner_lr"]: trial for trial in study.trials}
    assert states["ok"].state == optuna.trial.TrialState.FAIL
    assert states["ok"].user_attrs["missing"][0].startswith("a: method lacks data seed")
    assert states["stopped"].state == optuna.trial.TrialState.PRUNED


def test_searches_of_different_source_sets_become_two_studies(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for name in ("all", "12"):
        results.point(
            "maml", "cls_to_cls", _scores(1), PT, role="validation", source_set=name,
            trajectory=name,
        )  # fmt: skip
    out = tmp_path / "a.log"
    assert main(["export", "optuna", "--results", str(results.root), "--out", str(out)]) == 0
    backend = optuna.storages.journal.JournalFileBackend(str(out))
    storage = optuna.storages.JournalStorage(backend)
    assert len(optuna.get_all_study_names(storage)) == 2


def _rows(tmp_path: Path, results: Results) -> list[dict[str, Any]]:
    out = tmp_path / "leaves.parquet"
    assert main(["export", "parquet", "--results", str(results.root), "--out", str(out)]) == 0
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_parquet_holds_every_leaf_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "results")
    whole = results.leaf(
        "a", 13, 0.3, init="x", dev=1 / 3, test=0.1 + 0.2, curve=[[5, 0.25, 1.5], [10, None, 0.5]]
    )  # fmt: skip
    dead = results.leaf("b", 21, 0.5, init="y", dev=None, test=None, status="diverged")
    torn = results.leaf("c", 21, 0.5, init="y")
    path = results.root / "leaves" / torn[:2] / f"{torn}.json"
    path.write_bytes(path.read_bytes()[:50])
    rows = {row["key"]: row for row in _rows(tmp_path, results)}
    assert set(rows) == {whole, dead}
    shown = capsys.readouterr()
    assert shown.out.startswith("2 leaves → ")
    assert torn in shown.err
    row = rows[whole]
    assert (row["task"], row["data_seed"], row["lr"], row["metric"]) == ("a", 13, 0.3, "ACC")
    assert (row["dev"], row["test"]) == (1 / 3, 0.1 + 0.2)  # every bit
    assert (row["curve_step"], row["curve_dev"]) == ([5, 10], [0.25, None])
    assert (row["cost_steps"], row["cost_seconds"]) == (10.0, 1.5)
    assert (row["commit"], json.loads(row["versions"])) == (ORIGIN["commit"], ORIGIN["versions"])
    assert json.loads(row["identity"])["init"] == "x"
    assert (rows[dead]["dev"], rows[dead]["test"], rows[dead]["status"]) == (
        None, None, "diverged",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["optuna", "parquet"])
def test_an_export_overwrites_nothing_and_asks_for_records(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "there.db"
    out.write_text("precious")
    results = _search(tmp_path / "results")
    assert main(["export", kind, "--results", str(results.root), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"
    empty = tmp_path / "empty"
    empty.mkdir()
    new = str(tmp_path / "new.db")
    assert main(["export", kind, "--results", str(empty), "--out", new]) == 3
    assert main(["export", kind, "--results", str(empty / "absent"), "--out", new]) == 2
    assert not Path(new).exists()


def test_a_storage_of_another_kind_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "optuna", "--results", str(tmp_path), "--out", "a.txt"]) == 2
    assert "must end in .db, .sqlite (SQLite) or .log, .journal" in capsys.readouterr().err


def _prompt(path: Path, width: int, seed: int = 0) -> torch.Tensor:
    prompt = torch.randn(P, width, generator=torch.Generator().manual_seed(seed))
    save_prompt(path, prompt, {"trajectory": "t0"})
    return prompt


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_peft_gives_a_prompt_the_loss_that_it_has_here(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = FAMILIES[next(name for name in FAMILIES if name.startswith(family))](tmp_path / family)
    backbone = load_backbone(str(model))
    prompt = _prompt(tmp_path / "prompt.safetensors", backbone.d_model)
    words = ["export", "peft", str(tmp_path / "prompt.safetensors"), "--base-model", str(model)]
    assert main([*words, "--out", str(tmp_path / "adapter")]) == 0
    source, target = [5, 6, 7, 8], [9, 10, 11, 12, 13]
    batch = backbone.collate([(source, target)], [0])
    ours = backbone.row_losses(prompt[None], batch)[0].item()
    auto = AutoModelForCausalLM if family == "gpt2" else AutoModelForSeq2SeqLM
    wrapped = peft.PeftModel.from_pretrained(
        auto.from_pretrained(model), tmp_path / "adapter"
    ).eval()
    if family == "gpt2":
        source, target = source + target, [-100] * len(source) + target
    with torch.no_grad():
        theirs = wrapped(
            input_ids=torch.tensor([source]),
            attention_mask=torch.ones(1, len(source), dtype=torch.long),
            labels=torch.tensor([target]),
        ).loss.item()
    # their loss is a mean over the five target tokens; float32 sums in another order
    assert 5 * theirs == pytest.approx(ours, rel=1e-5)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert list(saved) == ["prompt_embeddings"]
    assert torch.equal(saved["prompt_embeddings"], prompt)


def _export_peft(prompt: Path, out: Path, *more: str) -> int:
    return main(["export", "peft", str(prompt), "--out", str(out), *more])


def _config(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "adapter_config.json").read_text()))


def test_the_records_around_a_rung_name_its_model(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    settings = {"prompt": {"length": P, "position": "prepend"}}
    results.point(
        "maml", "cls_to_cls", _scores(1), PT, identity=settings, trajectory="t0",
        backbone="google/t5-large-lm-adapt",
    )  # fmt: skip
    rung = results.root / "trajectories" / "t0" / "rung-100.safetensors"
    _prompt(rung, 8)
    assert _export_peft(rung, tmp_path / "adapter") == 0
    config = _config(tmp_path / "adapter")
    assert config["base_model_name_or_path"] == "google/t5-large-lm-adapt"
    assert (config["num_virtual_tokens"], config["token_dim"]) == (P, 8)
    assert (config["task_type"], config["num_transformer_submodules"]) == ("SEQ_2_SEQ_LM", 1)


def test_a_prompt_that_stood_behind_the_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "results")
    settings = {"prompt": {"length": P, "position": "append"}}
    results.point("maml", "cls_to_cls", _scores(1), PT, identity=settings, trajectory="t0")
    rung = results.root / "trajectories" / "t0" / "rung-100.safetensors"
    _prompt(rung, 8)
    for more in ([], ["--base-model", "gpt2"]):
        assert _export_peft(rung, tmp_path / "adapter", *more) == 2
        assert "trained with position 'append'" in capsys.readouterr().err


def test_what_cannot_become_an_adapter_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "prompt.safetensors", tmp_path / "adapter"
    assert _export_peft(path, out) == 2
    path.write_text("no prompt")
    assert _export_peft(path, out) == 3
    _prompt(path, 8)
    assert _export_peft(path, out) == 2
    assert "give it with --base-model" in capsys.readouterr().err
    assert _export_peft(path, out, "--base-model", "embedded") == 2
    assert "is 8 wide, but embedded is 128" in capsys.readouterr().err
    assert not out.exists()
    assert _export_peft(path, out, "--base-model", "some/gpt2-large") == 0
    assert _config(out)["task_type"] == "CAUSAL_LM"
    assert _export_peft(path, out, "--base-model", "some/gpt2-large") == 2
    assert "exists already" in capsys.readouterr().err
