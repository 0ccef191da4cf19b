"""Steps of multitask learning at the sizes of the published files, partition by partition.

The sizes are written down here, task by task, and the steps are counted from them by hand: 20
epochs of ⌈rows / 4⌉ batches over the train and dev rows of the sources at five data seeds. So 45
classification tasks are 56 010 rows, 14 003 batches and 280 060 steps, the number in the authors'
files.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from stored import Stored

from mpt.config import DATA_SEEDS, UpstreamConfig
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import load_task
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request

CLASSES: dict[int, str] = {
    2: """ade_corpus_v2-classification amazon_polarity art blimp-anaphor_gender_agreement
        blimp-anaphor_number_agreement blimp-determiner_noun_agreement_with_adj_irregular_1
        blimp-ellipsis_n_bar_1 blimp-ellipsis_n_bar_2 blimp-existential_there_quantifiers_1
        blimp-irregular_past_participle_adjectives blimp-wh_questions_object_gap boolq crows_pairs
        blimp-sentential_negation_npi_licensor_present blimp-sentential_negation_npi_scope
        ethos-directed_vs_generalized ethos-disability ethos-gender ethos-national_origin
        ethos-race ethos-religion ethos-sexual_orientation glue-cola glue-mrpc glue-qnli glue-qqp
        glue-rte glue-sst2 glue-wnli google_wellformed_query hate_speech18 imdb mc_taco
        medical_questions_pairs paws piqa rotten_tomatoes scitail sms_spam superglue-rte
        superglue-wic superglue-wsc tab_fact tweet_eval-hate tweet_eval-irony wiki_qa
        tweet_eval-offensive yelp_polarity""",
    3: """anli financial_phrasebank glue-mnli hate_speech_offensive hatexplain onestop_english
        scicite sick tweet_eval-sentiment tweet_eval-stance_abortion tweet_eval-stance_atheism
        tweet_eval-stance_feminist tweet_eval-stance_hillary""",
    4: "ag_news climate_fever emo health_fact poem_sentiment tweet_eval-emotion",
    5: "circa yelp_review_full",
    6: "emotion liar trec",
    10: "yahoo_answers_topics",
    14: "dbpedia_14",
    20: "tweet_eval-emoji",
    174: "discovery",
}
"""Classes → source tasks with 16 rows of each in train and in dev; others have 32 and 32."""
SIZES = {task: (16 * n, 16 * n) for n, tasks in CLASSES.items() for task in tasks.split()}
# classes with fewer rows than that
SIZES |= {"trec-finegrained": (640, 437), "superglue-cb": (48, 32)}
SIZES |= {"tweet_eval-stance_climate": (45, 32)}

GONE = """adversarialqa art aslg_pc12 biomrc circa discovery duorc eli5-askh eli5-asks eli5-eli5
    gigaword glue-qqp health_fact imdb kilt_wow math_qa reddit_tifu-title reddit_tifu-tldr scicite
    spider wiki_bio yelp_polarity yelp_review_full"""
"""Sources that one real gym lacked; its boolq had but 27 rows for dev."""

STEPS: dict[str, dict[str, int]] = {
    "whole": {
        "random_to_random": 254860,
        "cls_to_cls": 280060,
        "both_to_cls": 220800,
        "noncls_to_cls": 74400,
        "cls_to_noncls": 280060,
        "both_to_noncls": 220800,
        "noncls_to_noncls": 74400,
        "qa_to_qa": 35200,
        "nonqa_to_qa": 239200,
        "nonpara_to_para": 322060,
    },
    "partial": {
        "random_to_random": 231540,
        "cls_to_cls": 128060,
        "both_to_cls": 64800,
        "noncls_to_cls": 52800,
        "cls_to_noncls": 128060,
        "both_to_noncls": 64800,
        "noncls_to_noncls": 52800,
        "qa_to_qa": 33480,
        "nonqa_to_qa": 84000,
        "nonpara_to_para": 170060,
    },
}
"""Gym → partition → steps of 20 epochs in batches of 4."""
SEARCHED = "random_to_random"


def _size(task: str, kind: str) -> tuple[int, int]:
    """Return train and dev rows of a sample; none of a task that is not there."""
    if kind == "partial" and task in GONE.split():
        return 0, 0
    return (32, 27) if (kind, task) == ("partial", "boolq") else SIZES.get(task, (32, 32))


@pytest.fixture(scope="module", params=STEPS)
def sized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A gym of one-letter answers with the published catalogue, and which one it is."""
    kind, folder = request.param, tmp_path_factory.mktemp("published_sizes")
    catalogue = load_catalogue(folder)
    used = [
        name
        for part in catalogue.partition_names
        for name in (*catalogue.partition(part).source, *catalogue.partition(part).target)
    ]
    for name in dict.fromkeys(used):
        train, dev = _size(name, kind)
        if train == 0:
            continue
        (folder / name).mkdir()
        shots = catalogue.task(name).shots
        for seed, (part, rows) in itertools.product(
            DATA_SEEDS, (("train", train), ("dev", dev), ("test", 1))
        ):
            text = "".join(f"{row}\ty\n" for row in range(rows))
            (folder / name / f"{name}_{shots}_{seed}_{part}.tsv").write_text(text)
    return folder, kind


def _sources(gym: Path, partition: str, kind: str) -> list[str]:
    names = load_catalogue(gym).partition(partition).source
    return [name for name in names if sum(_size(name, kind))]


def test_searched_epochs_are_the_published_steps_of_every_partition(
    sized: tuple[Path, str], tmp_path: Path
) -> None:
    gym, kind = sized
    stored, plain = (
        Stored(tmp_path),
        Request(
            results=tmp_path,
            gym=str(gym),
            backbones=("google/t5-large-lm-adapt",),
            methods=("multitask",),
            allow_missing=kind == "partial",
        ),
    )
    catalogue = load_catalogue(gym)
    items = [
        load_task(gym, catalogue.task(name), seed)
        for name in _sources(gym, SEARCHED, kind)
        for seed in DATA_SEEDS
    ]
    study = stored.study(
        backbone="google/t5-large-lm-adapt",
        gym=str(gym),
        source=tuple((item.name, item.seed, item.digest) for item in items),
        partial="some tasks are missing" if kind == "partial" else None,
    )
    config = UpstreamConfig(method="multitask", outer_lr=0.5, batch_size=4)
    whole = STEPS[kind][SEARCHED]
    for epochs, arg in ((5, 1.0), (10, 2.0), (20, 9.0)):
        stored.point(study, config, whole * epochs // 20, arg)
    searched = Request(**{**vars(plain), "searched": tmp_path})
    for request in (searched, plain):
        trials = plan_replay(request).job.trials
        steps = {trial.plan.config.partition: trial.upstream.rungs for trial in trials}
        assert steps == {name: (count,) for name, count in STEPS[kind].items()}


@pytest.mark.parametrize("kind", STEPS)
def test_the_steps_above_are_those_of_the_sizes_above(kind: str, tmp_path: Path) -> None:
    for partition, steps in STEPS[kind].items():
        rows = sum(5 * sum(_size(name, kind)) for name in _sources(tmp_path, partition, kind))
        assert steps == 20 * math.ceil(rows / 4), partition


REAL = Path(__file__).resolve().parents[2].parent / "shared" / "gym"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real few-shot files are here")
def test_real_files_have_the_sizes_above() -> None:
    there = {path.name for path in REAL.iterdir() if path.is_dir()}
    sources = {n for part in STEPS["whole"] for n in _sources(REAL, part, "whole")}
    assert sources - there == set(GONE.split()) & sources
    for task in sorted(sources & there):
        for seed in DATA_SEEDS:
            found = tuple(
                path.read_bytes().count(b"\n")
                for part in ("train", "dev")
                for path in (REAL / task).glob(f"{task}_*_{seed}_{part}.tsv")
            )
            assert found == _size(task, "partial"), f"{task}, data seed {seed}"
