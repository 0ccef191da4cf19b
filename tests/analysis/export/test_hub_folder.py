"""The folder for the Hub: read by PEFT and YAML, its numbers recomputed from the records."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from results_factory import Results, flat
from toy_backbones import FAMILIES

from analysis.__main__ import main
from mpt.backbones import load_backbone
from mpt.backbones.encoder_decoder import EncoderDecoder
from mpt.prompts import prompt_bytes
from mpt.store.artifacts import Artifacts
from mpt.store.database import FILE
from mpt.store.records import Artifact

PT = flat({"a": 0.5, "b_1": 0.4})
SCORES = {"a": {13: 0.6, 21: 0.75}, "b_1": {13: 0.3, 21: 0.4}}
LARGE = "google/t5-large-lm-adapt"
P = 4


def _learned(results: Results, trajectory: str = "t0", width: int = 8, **study: Any) -> str:
    """Write a point with its prompt; return its key."""
    seed = study.pop("seed", 42)
    scores = study.pop("scores", SCORES)
    settings = {"method": "maml", "inner_lr": 1.0, "outer_lr": 0.1, "seed": seed}
    point = {"trajectory": trajectory, "settings": settings, **study.pop("point", {})}
    study.setdefault("backbone", LARGE)
    key = results.point("maml", "cls_to_cls", scores, PT, point=point, **study)
    prompt = torch.randn(P, width, generator=torch.Generator().manual_seed(seed))
    data = prompt_bytes(prompt, {"upstream": trajectory, "steps": "100"})
    uri, digest = Artifacts(str(results.root)).write(f"rungs/{trajectory}.safetensors", data)
    artifact = Artifact(kind="rung", owner=trajectory, steps=100, uri=uri, digest=digest)
    results.database.add_artifact(artifact)
    return key


def _export(results: Results, out: Path, *more: str) -> int:
    return main(["export", "hub", "--results", str(results.root), "--out", str(out), *more])


def _card(out: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter and the text of a card."""
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text.replace("\\", "")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def test_the_front_matter_is_what_the_hub_asks_for(results: Results, tmp_path: Path) -> None:
    _learned(results)
    out = tmp_path / "hub"
    assert _export(results, out, "--license", "mit") == 0
    front, text = _card(out)
    assert front == {
        "base_model": LARGE,
        "library_name": "peft",
        "license": "mit",
        "pipeline_tag": "text2text-generation",
        "tags": ["prompt-tuning", "soft-prompt", "meta-prompt-tuning", "few-shot", "maml"],
    }
    assert "No licence is chosen" not in text
    assert f'name = "{LARGE}"' in text
    files = {path.name for path in out.iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["num_virtual_tokens"]) == (LARGE, P)


def test_the_numbers_of_a_card_follow_from_the_records(results: Results, tmp_path: Path) -> None:
    key = _learned(results)
    assert _export(results, tmp_path / "hub") == 0
    _, text = _card(tmp_path / "hub")
    # straight from the tables: per task and data seed the run with the best dev score
    query = """select r.task, r.data_seed, r.test, r.dev from run r
        join point_run pr on pr.run_id = r.id join point p on p.id = pr.point_id
        where p.key = ? order by r.dev"""
    with sqlite3.connect(results.root / FILE) as database:
        taken = {row[:2]: row[2] for row in database.execute(query, (key,))}
    gains = {}
    for task in PT:
        ours = [taken[task, seed] for seed in (13, 21)]
        theirs = [PT[task][seed] for seed in (13, 21)]
        s, pt = sum(ours) / 2, sum(theirs) / 2
        gains[task] = 100 * (s - pt) / pt
        row = next(line for line in text.splitlines() if line.startswith(f"| {task} |"))
        cells = [cell.strip().replace("−", "-") for cell in row.strip("|").split("|")]
        assert [float(cell) for cell in cells[1:4]] == pytest.approx(
            [pt, s, gains[task]], abs=5e-3
        )
        assert cells[4:] == [f"{a:.4f} → {b:.4f}" for a, b in zip(theirs, ours, strict=True)]
    arg = sum(gains.values()) / len(gains)
    found = re.search(r"\*\*ARG ([+−]?[\d.]+) %\*\* \[(.+?), (.+?)\]", text)
    assert found is not None
    value, low, high = (float(part.replace("−", "-")) for part in found.groups())
    assert value == pytest.approx(arg, abs=5e-3) == 11.25
    assert low < value < high
    assert "mean over 2 tasks" in text
    assert "2 data seeds (13, 21)" in text
    assert "of this prompt, of upstream seed 42. The 95 % interval is over data seeds." in text


def test_a_configuration_of_several_upstream_seeds_says_what_the_others_gave(
    results: Results, tmp_path: Path
) -> None:
    for seed, factor in ((42, 1.0), (1042, 0.8), (2042, 1.1)):
        scores = {t: {s: factor * v for s, v in row.items()} for t, row in SCORES.items()}
        key = _learned(results, f"t{seed}", seed=seed, scores=scores)
    assert _export(results, tmp_path / "hub", "--point", key[:8]) == 0
    _, text = _card(tmp_path / "hub")
    # ARG is linear in the scores: 111.25 factor − 100
    args = [111.25 * factor - 100 for factor in (1.0, 0.8, 1.1)]
    assert f"**ARG +{args[2]:.2f} %**" in text.replace("22.37", "22.38")
    mean = sum(args) / 3
    assert f"ARG +{mean:.2f} %" in text
    assert "mean over 3 upstream seeds: 42 (11.25), 1042 (−11.00), 2042 (22.3" in text
    assert "one new run lies in [" in text
    assert "One upstream seed" not in text


def test_settings_provenance_and_study_are_on_the_card(results: Results, tmp_path: Path) -> None:
    key = _learned(results, gym="/home/someone/gym")
    assert _export(results, tmp_path / "hub") == 0
    _, text = _card(tmp_path / "hub")
    for part in (
        "MAML against plain prompt tuning (PT) on t5-large-lm-adapt and the gym: 1 point on "
        "target tasks of Cls→Cls.",
        "| inner_lr | 1.0 |",
        "| upstream steps | 100 |",
        f"| point | {key} |",
        "| commit of mpt | abc123 |",
        "| versions | torch 2.13.0 |",
    ):
        assert part in text
    assert "/home/someone" not in text


@pytest.mark.parametrize(
    ("study", "warning"),
    [
        ({"smoke": True}, "its numbers mean nothing"),
        ({"partial": "partial: 3 of 9 tasks"}, "Partial: 3 of 9 tasks."),
        ({"role": "validation"}, "of the best of several points this number is too high"),
        ({}, "One upstream seed: the prompt of another may score outside the interval."),
        ({}, "No licence is chosen; --license names one."),
    ],
)
def test_what_a_reader_must_know_stands_first_and_is_said_to_the_exporter(
    results: Results,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    study: dict[str, Any],
    warning: str,
) -> None:
    _learned(results, **study)
    assert _export(results, tmp_path / "hub") == 0
    front, text = _card(tmp_path / "hub")
    assert warning in text[: text.index("## What was studied")]
    assert f"{warning}" in capsys.readouterr().err
    assert ("smoke-run" in front["tags"]) == bool(study.get("smoke"))
    assert front["license"] == "unknown"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_loads_the_folder_and_its_prompt_is_ours(results: Results, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    name = next(name for name in FAMILIES if name.startswith("t5"))
    model = FAMILIES[name](tmp_path / name)
    width = load_backbone(str(model)).d_model
    _learned(results, width=width, backbone=str(model))
    out = tmp_path / "hub"
    assert _export(results, out) == 0
    front, text = _card(out)
    assert "base_model" not in front, "it is no id on the Hub"
    assert f"The base model {model.name} is no id on the Hub; --base-model names it." in text
    assert str(tmp_path) not in text + (out / "adapter_config.json").read_text()
    code = text[text.index("```python") + 9 :].partition("```")[0]  # as the card says
    names: dict[str, Any] = {"BASE_MODEL": str(model)}
    exec(code.replace("THIS_REPOSITORY", str(out)), names)
    loaded = names["model"]
    assert isinstance(loaded, peft.PeftModel)
    trained = [name for name, one in loaded.named_parameters() if one.requires_grad]
    assert trained == ["prompt_encoder.default.embedding.weight"]
    prompt = torch.randn(P, width, generator=torch.Generator().manual_seed(42))
    assert torch.equal(loaded.get_prompt_embedding_to_save("default"), prompt)
    assert _export(results, tmp_path / "named", "--base-model", "me/mine") == 0
    front, _ = _card(tmp_path / "named")
    assert front["base_model"] == "me/mine"


TEXT = " [a] good film"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_card_of_a_prompt_behind_the_input_runs_it_as_we_do(
    results: Results, tmp_path: Path, family: str
) -> None:
    model = FAMILIES[family](tmp_path / family)
    backbone = load_backbone(str(model), position="append")
    kind = "seq2seq" if isinstance(backbone, EncoderDecoder) else "causal"
    _learned(
        results, width=backbone.d_model, backbone=str(model),
        settings={"prompt": {"length": P, "position": "append"}},
    )  # fmt: skip
    out = tmp_path / "hub"
    assert _export(results, out, "--kind", kind) == 0
    assert {path.name for path in out.iterdir()} == {"README.md", "prompt.safetensors"}
    front, text = _card(out)
    assert front["library_name"] == "transformers"
    assert "PEFT's PromptEmbedding cannot express it" in text
    assert "**ARG +11.25 %** [" in text
    _, card = (out / "README.md").read_text().split("## Use", 1)
    code = card[card.index("```python") + 9 :].partition("```")[0]
    code = code.replace("THIS_REPOSITORY", str(out)).replace(" [TASK] YOUR INPUT", TEXT)
    names: dict[str, Any] = {"BASE_MODEL": str(model)}
    exec(code, names)
    # our own pass: the logits of the first output token, and what is written
    batch = backbone.collate([(backbone.encode_input(TEXT, 60), [backbone.end_id])], [0])
    prompt = torch.randn(P, backbone.d_model, generator=torch.Generator().manual_seed(42))
    with torch.no_grad():
        ours = backbone.head(backbone.target_states(prompt[None], batch))
        given = []
        if kind == "seq2seq":
            given = [names["config"].decoder_start_token_id, *names["begin"]]
        first = {"decoder_input_ids": torch.tensor([given])} if given else {}
        theirs = names["model"](
            inputs_embeds=names["row"], attention_mask=names["mask"], **first
        ).logits[:, -1]
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    (ids,) = backbone.generate_ids(prompt[None], batch, 16)
    written = names["written"][0].tolist()
    assert written[: len(given)] == given
    assert written[len(given) :][: len(ids)] == ids[: 16 - max(0, len(given) - 1)]


def test_peft_refuses_a_prompt_behind_the_input_and_names_what_takes_it(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = _learned(results, settings={"prompt": {"length": P, "position": "append"}})
    file = str(results.root / "rungs" / "t0.safetensors")
    out = ("--out", str(tmp_path / "adapter"))
    where = ("--results", str(results.root))
    for words in ((file,), (*where, "--point", key[:8])):
        assert main(["export", "peft", *words, *out]) == 2
        error = capsys.readouterr().err
        assert "position 'append', but PEFT puts a prompt before the input" in error
        assert "`mpt export hub`" in error
        assert error.count("\n") == 1


def test_peft_takes_a_point_of_results_in_place_of_a_file(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, out = _learned(results), tmp_path / "adapter"
    where = ("--results", str(results.root), "--out", str(out))
    assert main(["export", "peft", *where, "--point", key[:8]]) == 0
    assert f"{P} virtual tokens → {out}" in capsys.readouterr().out
    assert {one.name for one in out.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["num_virtual_tokens"]) == (LARGE, P)
    assert main(["export", "peft", *where]) == 2
    assert "give either its file, or --results DIR --point ID" in capsys.readouterr().err
    assert main(["export", "peft", *where[2:], "--point", key[:8]]) == 2
    assert "--point says something only with --results" in capsys.readouterr().err


def test_a_point_must_be_named_where_there_are_several(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hub"
    first, second = _learned(results), _learned(results, "t1", point={"steps": 100, "note": "x"})
    for words, said in (
        ((), "--point is missing, but must be the first 8 digits or more"),
        (("--point", first[:4]), f"--point is '{first[:4]}', but must be"),
        (("--point", "feedfeed"), "holds 2 points with a learned prompt"),
    ):
        assert _export(results, out, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert f"{second[:8]} (maml, 100 steps, ARG 11.25 %)" in error
    assert _export(results, out, "--point", first[:8]) == 0
    assert _export(results, out, "--point", first[:8]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_cannot_be_published_is_an_error(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hub"
    results.point("maml", "cls_to_cls", SCORES, PT, backbone=LARGE)
    assert _export(results, out) == 2
    assert "has no prompt of its own in the records" in capsys.readouterr().err
    assert _export(results, out, "--license", "My own!") == 2
    assert "--license is 'My own!', but must be an id of the Hub's list" in capsys.readouterr().err
    other = Results(tmp_path / "padded")
    _learned(other, settings={"prompt": {"length": P, "position": "append_padded"}})
    assert _export(other, out) == 2
    assert "trained with position 'append_padded', which no code but" in capsys.readouterr().err
    changed = Results(tmp_path / "changed")
    _learned(changed)
    (changed.root / "rungs" / "t0.safetensors").write_bytes(b"torn")
    assert _export(changed, out) == 3
    assert "its digest does not fit" in capsys.readouterr().err
    assert not out.exists()
