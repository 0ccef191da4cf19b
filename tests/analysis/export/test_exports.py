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
from analysis.results.reading import read_results
from mpt.backbones import load_backbone
from mpt.prompts import prompt_bytes
from mpt.store.artifacts import Artifacts
from mpt.store.records import Artifact, Stop

PT = flat({"a": 0.5})
P = 4


def _scores(gain: float) -> dict[str, dict[int, float]]:
    return flat({"a": 0.5 * (1 + gain / 100)})


def _search(root: Path) -> Results:
    """Two trajectories with two rungs each; the second diverges at its second rung."""
    results = Results(root)
    place: Any = ("maml", "random_to_random")
    for at, (lr, rungs) in enumerate(((1.0, {50: 5.0, 100: 9.0}), (30.0, {50: -8.0}))):
        point: dict[str, Any] = {
            "trajectory": f"t{at}",
            "settings": {"inner_lr": lr, "outer_lr": 0.1, "order": "auto"},
        }
        for steps, gain in rungs.items():
            rung = {**point, "steps": steps}
            results.point(*place, _scores(gain), PT, role="validation", point=rung)
    lost = {**point, "steps": 100, "status": "diverged", "note": "nan"}
    results.point(*place, {}, PT, role="validation", point=lost)
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
    ours = read_results(results.root).main.studies[0]
    about = "maml on random_to_random (embedded, gym embedded; validation)"
    assert study.study_name == f"{about}, study {ours.id}"
    assert study.user_attrs["key"] == ours.key
    assert study.user_attrs["protocol"] == ours.protocol
    assert study.user_attrs["smoke"] is False
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


def test_a_point_with_a_missing_run_has_failed_and_a_stopped_one_is_pruned(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    for status in ("ok", "stopped"):
        key = results.point(
            "maml", "cls_to_cls", _scores(1), PT, role="validation", without=[("a", 13, 0.3)],
            point={"trajectory": status, "settings": {"inner_lr": status}},
        )  # fmt: skip
        if status == "stopped":
            stop = Stop(point=key, trial="t", steps=100, by="racing", reason="1 < 2")
            results.database.add_stop(stop)
    out = tmp_path / "a.log"
    assert main(["export", "optuna", "--results", str(results.root), "--out", str(out)]) == 0
    backend = optuna.storages.journal.JournalFileBackend(str(out))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    states = {trial.params["inner_lr"]: trial for trial in study.trials}
    assert states["ok"].state == optuna.trial.TrialState.FAIL
    assert states["ok"].user_attrs["missing"][0].startswith("a: method lacks data seed")
    assert states["stopped"].state == optuna.trial.TrialState.PRUNED
    assert states["stopped"].user_attrs["note"].startswith("stopped by racing")


def test_every_study_and_method_is_a_study_of_optuna_whatever_else_is_there(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    others: list[dict[str, Any]] = [{"source_set": "12"}, {"edited": {"a": "x"}}, {"smoke": True}]
    for study in [{}, *others]:
        results.point("maml", "cls_to_cls", _scores(1), PT, role="validation", **study)
    results.point("my_method", "cls_to_cls", _scores(1), PT, role="validation")

    def exported(name: str, *more: str) -> list[str]:
        out = tmp_path / name
        words = ["export", "optuna", "--results", str(results.root), "--out", str(out), *more]
        assert main(words) == 0
        backend = optuna.storages.journal.JournalFileBackend(str(out))
        return optuna.get_all_study_names(optuna.storages.JournalStorage(backend))

    names = exported("a.log")
    assert len(set(names)) == 5
    assert len({name.rsplit(" ", 1)[1] for name in names}) == 4  # ids of studies
    only = read_results(results.root).main.studies[0].id
    assert sorted(exported("b.log", "--study", only)) == sorted(n for n in names if only in n)


def _rows(tmp_path: Path, results: Results, *more: str) -> list[dict[str, Any]]:
    out = tmp_path / f"runs{len(more)}.parquet"
    words = ["export", "parquet", "--results", str(results.root), "--out", str(out), *more]
    assert main(words) == 0
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_parquet_holds_every_run_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "results")
    curve = ((5, 0.25, 1.5), (10, None, 0.5))
    whole = results.run(
        "a", 13, 0.3, init="x", dev=1 / 3, test=0.1 + 0.2, curve=curve,
        recipe={"downstream": {"steps": 50}},
    )  # fmt: skip
    dead = results.run("b", 21, 0.5, init="y", dev=None, test=None, status="diverged")
    rows = {row["key"]: row for row in _rows(tmp_path, results)}
    assert set(rows) == {whole, dead}
    assert capsys.readouterr().out.startswith("2 runs → ")
    row = rows[whole]
    assert (row["task"], row["data_seed"], row["lr"], row["metric"]) == ("a", 13, 0.3, "ACC")
    assert (row["dev"], row["test"]) == (1 / 3, 0.1 + 0.2)  # every bit
    assert json.loads(row["curve"]) == [[5, 0.25, 1.5], [10, None, 0.5]]
    assert (row["train_steps"], row["seconds"]) == (10.0, 1.5)
    assert (row["commit"], row["init"]) == (ORIGIN["commit"], "x")
    assert row["downstream.steps"] == 50
    assert (rows[dead]["dev"], rows[dead]["test"], rows[dead]["status"]) == (
        None, None, "diverged",
    )  # fmt: skip


def test_parquet_may_hold_the_runs_of_one_study_alone(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for partition, gain in (("cls_to_cls", 1.0), ("qa_to_qa", 2.0)):
        results.point("maml", partition, _scores(gain), PT)
    study = read_results(results.root).main.studies[0]
    keys = {key for point in results.database.points(study.key) for key in point.runs}
    assert {row["key"] for row in _rows(tmp_path, results, "--study", study.id)} == keys
    assert len(keys) < len(_rows(tmp_path, results))


@pytest.mark.parametrize("kind", ["optuna", "parquet"])
def test_an_export_overwrites_nothing_and_asks_for_records(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("there.db" if kind == "optuna" else "there.parquet")
    out.write_text("precious")
    results = _search(tmp_path / "results")
    assert main(["export", kind, "--results", str(results.root), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"
    empty = tmp_path / "empty"
    Results(empty)
    new = str(out.with_stem("new"))
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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(prompt_bytes(prompt, {}))
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


def _keep(results: Results, kind: str, owner: str) -> Path:
    """Write a prompt that the database knows as an artifact."""
    path = results.root / "artifacts" / f"{kind}.safetensors"
    _prompt(path, 8)
    data = path.read_bytes()
    uri, digest = Artifacts(str(results.root / "artifacts")).write("kept", data)
    artifact = Artifact(kind=kind, owner=owner, steps=100, uri=uri, digest=digest)
    results.database.add_artifact(artifact)
    return path


def test_the_database_around_a_rung_names_its_model(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    large = "google/t5-large-lm-adapt"
    point = {"trajectory": "t0"}
    results.point("maml", "cls_to_cls", _scores(1), PT, backbone=large, point=point)
    rung = _keep(results, "rung", "t0")
    assert _export_peft(rung, tmp_path / "adapter") == 0
    config = _config(tmp_path / "adapter")
    assert config["base_model_name_or_path"] == large
    assert (config["num_virtual_tokens"], config["token_dim"]) == (P, 8)
    assert (config["task_type"], config["num_transformer_submodules"]) == ("SEQ_2_SEQ_LM", 1)
    # a file that was carried off is known by its bytes
    moved = rung.rename(tmp_path / "moved.safetensors")
    assert _export_peft(moved, tmp_path / "other", "--results", str(results.root)) == 0
    assert _config(tmp_path / "other") == config


def test_a_tuned_prompt_is_known_by_its_run(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    large = "openai/gpt2-large"
    results.point("maml", "cls_to_cls", _scores(1), PT, backbone=large)
    run = read_results(results.root).cells[0].tasks["a"][13].runs[0].key
    assert run is not None
    path = _keep(results, "prompt", run)
    assert _export_peft(path, tmp_path / "adapter") == 0
    assert _config(tmp_path / "adapter")["base_model_name_or_path"] == large


@pytest.mark.parametrize("kind", ["rung", "prompt"])
def test_a_prompt_that_stood_behind_the_input_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "results")
    behind = {"prompt": {"length": P, "position": "append"}}
    results.point("maml", "cls_to_cls", _scores(1), PT, settings=behind, point={"trajectory": "t"})
    run = results.run("a", 13, 0.5, init="x", recipe=behind)
    path = _keep(results, kind, "t" if kind == "rung" else run)
    for more in ([], ["--base-model", "gpt2"]):
        assert _export_peft(path, tmp_path / "adapter", *more) == 2
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
