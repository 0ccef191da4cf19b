"""The pilot of Table 8: what is chosen, recomputed by hand, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpt.backbones import load_backbone
from mpt.cli.similarity import main
from mpt.config import DATA_SEEDS, UpstreamConfig
from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.replay.request import Request
from mpt.replay.similarity import pilot, prompts
from mpt.replay.similarity.pairs import KIND as PAIRS
from mpt.replay.similarity.pilot import BY_INPUTS, Pilot
from mpt.replay.similarity.prompts import tune_here
from mpt.replay.similarity.ranking import KIND, load_rankings, save_rankings
from mpt.replay.similarity.settings import PilotSize, load_similarity_settings
from mpt.search.ray import session
from mpt.store.database import open_results
from mpt.study.spaces import SPACES

plan_pilot = functools.partial(pilot.plan_pilot, by="inputs")
"""Rankings by prompts are those of `test_prompts.py`."""
NOWHERE = Path("/nonexistent/results")
SOURCES = tuple(f"s{n:02d}" for n in range(12))
ALPHABETS = ("abc", "def", "ghi", "abd", "xyz", "mno")
PARTS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gym of twelve source and two target tasks, each of few letters of its own."""
    gym = tmp_path_factory.mktemp("letters") / "gym"
    rows = ['validation_tasks = ["s00"]']
    for place, name in enumerate((*SOURCES, "t-abc", "t-xyz")):
        rows += [f"[tasks.{name}]\nfamily = 'classification'\nmetric = 'ACC'\nshots = 4"]
        alphabet = ALPHABETS[place % len(ALPHABETS)] if name in SOURCES else name[2:]
        for seed in DATA_SEEDS:
            rng = np.random.default_rng([seed, place])
            for part in PARTS:
                path = gym / name / f"{name}_4_{seed}_{part}.tsv"
                path.parent.mkdir(parents=True, exist_ok=True)
                words = ["".join(rng.choice(list(alphabet), size=6)) for _ in range(8)]
                path.write_text("".join(f"{word}\tx\n" for word in words))
    rows += [f"[partitions.random_to_random]\nsource = {json.dumps(SOURCES)}"]
    rows += ['target = ["t-abc", "t-xyz"]']
    rows += [f"[partitions.qa_to_qa]\nsource = {json.dumps(SOURCES[:9])}\ntarget = ['t-abc']"]
    (gym / "gym.toml").write_text("\n".join(rows))
    return gym


@pytest.fixture
def request_(letters: Path, toy_checkpoint: Path) -> Request:
    """At real size: five of all twelve sources, every row of train and dev."""
    backbone = str(toy_checkpoint)
    return Request(results=NOWHERE, gym=str(letters), backbones=(backbone,), precision="float32")


def _chosen(plan: Pilot) -> dict[str, tuple[str, ...]]:
    """Return choice → sources; its name says that they were ranked by inputs."""
    found = {trial.plan.source_set: trial.plan.source for trial in plan.job.trials}
    assert all(name.endswith(BY_INPUTS) for name in found)
    return {name.removesuffix(BY_INPUTS): sources for name, sources in found.items()}


def _basis(checkpoint: Path, gym: Path, name: str, threshold: float) -> np.ndarray[Any, Any]:
    """Return U [d, k] of a task: one row at a time, and NumPy's decomposition."""
    backbone = load_backbone(str(checkpoint))
    model: Any = backbone.model
    states = []
    for part in ("train", "dev"):
        for line in (gym / name / f"{name}_4_{DATA_SEEDS[0]}_{part}.tsv").read_text().splitlines():
            ids = backbone.encode_input(f" {line.split(chr(9))[0]}", 512)
            found = model.get_encoder()(input_ids=backbone.collate([(ids, [1])], [0]).input_ids)
            states += list(found.last_hidden_state[0].detach().double().numpy())
    assert len(states) > 16
    _, sigma, right = np.linalg.svd(np.stack(states), full_matrices=False)
    k, energy = 0, 0.0
    while energy < threshold * sum(s * s for s in sigma):
        energy += sigma[k] ** 2
        k += 1
    return right[:k].T


def test_the_ranking_is_that_of_a_plain_loop_with_numpy(
    request_: Request, letters: Path, toy_checkpoint: Path
) -> None:
    plan = plan_pilot(request_, ("t-abc", "t-xyz"))
    bases = {n: _basis(toy_checkpoint, letters, n, 0.95) for n in (*SOURCES, "t-abc", "t-xyz")}
    for ranking in plan.rankings:
        own = bases[ranking.target]
        expected = {
            name: math.sqrt(((own.T @ bases[name]) ** 2).sum())
            / math.sqrt(min(own.shape[1], bases[name].shape[1]))
            for name in SOURCES
        }
        # float32 states, summed in other orders with and without padding
        assert dict(ranking.ranked) == pytest.approx(expected, abs=1e-4)
        order = sorted(SOURCES, key=lambda name: -expected[name])
        chosen = _chosen(plan)
        assert set(chosen[f"highest5-{ranking.target}"]) == set(order[:5])
        assert set(chosen[f"lowest5-{ranking.target}"]) == set(order[-5:])
        gaps = [expected[a] - expected[b] for a, b in ((order[4], order[5]), (order[6], order[7]))]
        assert min(gaps) > 2e-4  # so that the sets do not hang on rounding


def test_the_plan_has_three_trials_a_target_each_scored_on_it_alone(request_: Request) -> None:
    plan = plan_pilot(request_, ("t-abc", "t-xyz"))
    names = [
        f"{how}5-{target}"
        for target in ("t-abc", "t-xyz")
        for how in ("highest", "random", "lowest")
    ]
    assert list(_chosen(plan)) == names
    for trial in plan.job.trials:
        choice = trial.plan.source_set.removesuffix(BY_INPUTS)
        assert trial.plan.scored == (choice.partition("-")[2],)
        assert trial.plan.role == "target"
        assert trial.plan.source == tuple(n for n in SOURCES if n in trial.plan.source)
        assert len(trial.plan.source) == 5
        config = trial.upstream.config
        assert isinstance(config, UpstreamConfig)
        assert config.method == "maml"
        assert config.inner_lr == 3e-5  # the published setting
    assert plan.notes[1].startswith("sources are ranked by the similarity of input states")
    assert plan.notes[2].startswith("t-abc, highest5: s")
    assert len(plan.notes) == 2 + 6
    assert plan_pilot(request_, ("t-abc", "t-xyz")) == plan


def test_a_target_is_never_a_candidate_of_any_target(request_: Request) -> None:
    plan = plan_pilot(request_, ("t-abc", "s03"))
    for ranking in plan.rankings:
        assert {name for name, _ in ranking.ranked} == set(SOURCES) - {"s03"}
    assert all("s03" not in sources for sources in _chosen(plan).values())


def test_candidates_are_drawn_by_seed_and_partition_and_stand_in_its_order() -> None:
    study = plan_pilot(Request(results=NOWHERE, smoke=True)).job.plans[0].config
    size = load_similarity_settings("embedded").pilot
    source = load_catalogue(ensure_embedded_gym()).partition(size.partition).source
    drawn = pilot.candidates_of(study, size, 42)
    assert len(drawn) == size.candidates == 30
    assert drawn == tuple(name for name in source if name in drawn)
    assert drawn == pilot.candidates_of(study, size, 42)
    assert set(drawn) != set(pilot.candidates_of(study, size, 43))
    every = dataclasses.replace(size, candidates=99)
    assert pilot.candidates_of(study, every, 42) == source


def test_a_stored_ranking_is_taken_while_it_holds_and_no_longer(
    request_: Request, letters: Path, tmp_path: Path
) -> None:
    request = dataclasses.replace(request_, results=tmp_path)
    plan = plan_pilot(request, ("t-abc",))
    (ranking,) = plan.rankings
    turned = dataclasses.replace(ranking, ranked=ranking.ranked[::-1])
    save_rankings(tmp_path, None, [dataclasses.replace(turned, smoke=True)])
    assert plan_pilot(request, ("t-abc",)).rankings == (ranking,)
    save_rankings(tmp_path, None, [turned])
    assert plan_pilot(request, ("t-abc",)).rankings == (turned,)
    assert plan_pilot(request, ("t-abc",), reuse=False) == plan
    assert plan_pilot(dataclasses.replace(request, smoke=True), ("t-abc",)).rankings != (turned,)
    other = dataclasses.replace(request, partitions=("random_to_random",), precision="bfloat16")
    assert plan_pilot(other, ("t-abc",)).rankings != (turned,)
    # with a target that has none yet, all are computed
    both = plan_pilot(request, ("t-abc", "t-xyz")).rankings
    assert [one.target for one in both] == ["t-abc", "t-xyz"]
    assert both[0] == ranking
    # another target is added, and does not push the first one out
    save_rankings(tmp_path, None, plan_pilot(request, ("t-xyz",)).rankings)
    whole = [one.target for one in load_rankings(tmp_path) if not one.smoke]
    assert whole == ["t-abc", "t-xyz"]


def test_a_stored_ranking_of_another_program_is_named(tmp_path: Path, request_: Request) -> None:
    request = dataclasses.replace(request_, results=tmp_path)
    with open_results(tmp_path) as database:
        database.put_document(KIND, "x", {"target": "t-abc"})
    with pytest.raises(DataError, match=r"mpt\.db: a similarity_ranking must hold a ranking"):
        plan_pilot(request, ("t-abc",))


@pytest.mark.parametrize(
    ("changes", "targets", "message"),
    [
        ({}, ("t-abd",), "task 't-abd' is unknown; near it are t-abc"),
        ({}, (), "task 'quoref' is unknown"),
        ({"partitions": ("rr",)}, ("t-abc",), "partition 'rr' is unknown; known are random_to"),
        (
            {"partitions": ("qa_to_qa",)},
            ("t-abc",),
            "qa_to_qa has 9 candidates, but at least 10 are needed.*--partition",
        ),
        ({"methods": ("reptile",)}, ("t-abc",), "the pilot is of maml on one partition"),
        ({"sweep": "sources"}, ("t-abc",), "the pilot is of maml on one partition"),
        ({"backbones": ("a", "b")}, ("t-abc",), "backbones are a, b, but tasks are compared on"),
        (
            {},
            ("t-abc", "t-abc"),
            "targets are t-abc, t-abc, but must be different; name each once",
        ),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    request_: Request, changes: dict[str, Any], targets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_pilot(dataclasses.replace(request_, **changes), targets)


def test_missing_candidates_are_refused_or_labelled(
    request_: Request, letters: Path, tmp_path: Path
) -> None:
    gym = tmp_path / "gym"
    gym.mkdir()
    for path in letters.iterdir():
        if path.name != "s07":
            (gym / path.name).symlink_to(path)
    request = dataclasses.replace(request_, gym=str(gym))
    with pytest.raises(DataError, match=r"lack 1 task: s07 \(not built.*--allow-missing labels"):
        plan_pilot(request, ("t-abc",))
    plan = plan_pilot(dataclasses.replace(request, allow_missing=True), ("t-abc",))
    assert "s07" not in dict(plan.rankings[0].ranked)
    assert plan.job.partial == ("partial: 1 of 13 targets and candidates missing",)
    small = plan_pilot(dataclasses.replace(request, smoke=True), ("t-abc", "t-xyz"))
    assert small.job.partial == (
        "partial: smoke, 2 source tasks; 1 of 12 targets and candidates missing",
    )
    with pytest.raises(DataError, match="none of the targets s07 is there"):
        plan_pilot(dataclasses.replace(request, allow_missing=True), ("s07",))


# --- the data file -------------------------------------------------------------------------------


def test_the_defaults_are_tasks_of_their_gyms_and_no_target_is_a_source() -> None:
    for gym, folder in (("embedded", ensure_embedded_gym()), ("/published", None)):
        catalogue, settings = load_catalogue(folder), load_similarity_settings(gym)
        partition = catalogue.partition(settings.pilot.partition)
        assert set(settings.pilot.targets) <= set(partition.target)
    published = load_similarity_settings("/published").pilot
    assert published.targets == ("quoref", "glue-qnli", "samsum")
    assert (published.candidates, published.count) == (30, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threshold = 0.95", "threshold = 1.5"), "threshold is 1.5, but must be"),
        (("layer = -1", "layers = -1"), r"\[measure\] has the unknown key 'layers'"),
        (("layer = -1\n", ""), r"\[measure\] lacks .layer.; give it"),
        (("\n[smoke]\n", "\n[smok]\n"), "unknown key 'smok'"),
        (("[embedded.pilot]", "[embedded.pilots]"), r"\[embedded\] has the unknown key 'pilots'"),
        (("seed = 42", 'seed = "x"'), r"\[measure\] seed is 'x', but must be a whole number"),
        (('["classification", "classification"]', '["x"]'), r"\[pairs\] similar is \['x'\], but"),
        (
            ('= "conditional_generation"', "= 3"),
            r"\[pairs.nearest\] is .*must name families",
        ),
        (('"story-last"]\ncandidates = 30', "]\ncandidates = 9"), "candidates is 9, but must be"),
        (("targets = 1", "targets = 0"), r"\[smoke\] targets is 0"),
        (
            ('targets = ["qa', 'targets = []\n# ["qa'),
            "targets are none, but must be one task or more",
        ),
        (
            ('targets = ["qa', 'targets = ["x", "x"]\n# ["qa'),
            r"\[.*pilot\] targets names 'x' twice",
        ),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (SPACES / "similarity.toml").read_text()
    assert change[0] in text
    (tmp_path / "similarity.toml").write_text(text.replace(*change, 1))
    with pytest.raises((DataError, UsageError), match=message) as caught:
        load_similarity_settings("embedded", folder=tmp_path)
    assert str(tmp_path / "similarity.toml") in str(caught.value)


def test_a_pilot_needs_twice_as_many_candidates_as_it_chooses() -> None:
    with pytest.raises(UsageError, match="candidates is 9, but must be ≥ 10"):
        PilotSize(partition="x", targets=("t",), candidates=9, count=5)


# --- the command line ----------------------------------------------------------------------------


def test_fresh_moves_the_results_aside_before_the_new_documents_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is not run here; what it would be told is looked at. No prompt needs Ray."""
    told: list[Any] = []

    def carry_out(job: Any, execution: Any, flags: Any, *, notes: Any, table: str) -> int:
        told.append((flags.fresh, notes))
        return 0

    monkeypatch.setattr("mpt.cli.similarity.carry_out", carry_out)
    monkeypatch.setattr(session, "ray_session", lambda *_, **__: contextlib.nullcontext(1))
    monkeypatch.setattr(
        prompts, "_tuned", lambda config, packs, *_: (tune_here(config, p, "cpu") for p in packs)
    )
    with open_results(tmp_path) as database:
        database.put_document("earlier", "x", 1)
    assert main(["--smoke", "--results", str(tmp_path), "--fresh"]) == 0
    ((fresh, notes),) = told
    assert fresh is False  # the job must not move the new documents aside
    assert notes[0].startswith("--fresh: the results so far were moved to")
    with open_results(tmp_path, read_only=True) as database:
        assert database.documents("earlier") == {}
        assert len(database.documents(KIND)) == 1
        assert list(database.documents(PAIRS)) == ["embedded, embedded, smoke"]
    assert [path.name[:4] for path in tmp_path.glob("old-*")] == ["old-"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--targets", "story-lost"], "task 'story-lost' is unknown; near it are story-last"),
        (["--only", "pilot", "--prompts"], "--prompts is of Table 7"),
        (["--only", "pairs", "--targets", "a"], "--targets, --partition and --rank-by are of"),
        (["--only", "pairs", "--rank-by", "inputs"], "--rank-by are of Table 8"),
        (["--only", "pilot", "--from", "/nonexistent/x"], "--from is '/nonexistent/x'"),
    ],
)
def test_bad_flags_end_with_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    assert main(["--dry-run", "--results", str(tmp_path / "results"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "results").exists()
