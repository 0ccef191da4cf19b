"""What the sides of `peers_real.py` are to do: backbone, sides that it has, study."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from random_models import SHAPES, save_random
from transformers import AutoConfig, AutoTokenizer

from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.encoder_decoder import T5
from mpt.backbones.families import family_of
from mpt.backbones.load import PACKAGED_WEIGHTS, pretrained_source, read_pretrained
from mpt.backbones.tokens import words
from mpt.gym.catalogue import load_catalogue
from mpt.gym.episodes import render
from mpt.gym.fewshot import load_task
from mpt.study.presets import load_study
from mpt.study.study import StudyPlan, gym_folder, plan_study

PEERS = ("peft", "peft-padded")
OURS = ("prepend", "append")
SIDES = (*PEERS, *OURS)
T5_SIDES = ("peft", "prepend")


def sides_of(backbone: str, wanted: Sequence[str] | None) -> list[str]:
    """Return the sides that are compared on a backbone: the wanted ones, or all that it has.

    Raises:
        SystemExit: a wanted side makes no sense there, or the sides would not do the same runs.
    """
    family: type = T5
    if backbone not in SHAPES:
        source = pretrained_source(backbone)
        config = read_pretrained("configuration", backbone, AutoConfig, source)
        family = family_of(backbone, config)
    if issubclass(family, DecoderOnly):
        return list(wanted or SIDES)
    if not issubclass(family, T5):
        raise SystemExit(
            f"--backbone is {backbone}, but must be a decoder-only model or a T5: PEFT's decoder "
            "starts without the marks that ours gives to others; take embedded or t5-base-random"
        )
    if wrong := [side for side in wanted or () if side not in T5_SIDES]:
        raise SystemExit(
            f"--sides has {', '.join(wrong)}, but {backbone} is an encoder-decoder, whose padding "
            "is masked and whose encoder keeps no states of an input behind which a prompt "
            f"stands; take {' and '.join(T5_SIDES)}"
        )
    return list(wanted or T5_SIDES)


def checkpoint_of(backbone: str, folder: Path) -> str:
    """Return what every side loads for a backbone; a random T5 is saved in `folder` first.

    It reads by the packaged T5's tokenizer, so that texts of the embedded gym are as long as they
    are there and no answer is unknown; the rows of its embeddings behind those pieces stay unused,
    as the last ones of a real T5 do.
    """
    if backbone not in SHAPES:
        return backbone
    checkpoint = folder / backbone
    save_random(backbone, checkpoint, AutoTokenizer.from_pretrained(PACKAGED_WEIGHTS / "t5"))
    return str(checkpoint)


def plan_of(flags: argparse.Namespace, checkpoint: str) -> StudyPlan:
    """Return the study that all sides do, its prompt before the input.

    Args:
        flags: of the command line.
        checkpoint: of `checkpoint_of`.

    Raises:
        SystemExit: the gym has fewer of the study's tasks than are wanted.
    """
    config = load_study(checkpoint)
    told = {
        "lrs": None if flags.lrs is None else tuple(flags.lrs),
        "steps": flags.steps,
        "eval_every": flags.eval_every,
        "max_dev": flags.dev_rows,
        "max_test": flags.test_rows,
    }
    changed: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    seeds = config.data_seeds[: flags.seeds]
    if flags.quick:
        seeds = seeds[:1]
        changed |= {"steps": 2, "eval_every": 1, "max_dev": 4, "max_test": 8}
    config = dataclasses.replace(
        config,
        gym=flags.gym,
        data_seeds=seeds,
        precision=flags.dtype,
        prompt=dataclasses.replace(config.prompt, position="prepend"),
        downstream=dataclasses.replace(config.downstream, **changed),
        replicates=1,
        fresh_replicates=0,
    )
    # nothing is learned upstream: one source task will do
    plan = plan_study(config, smoke_sources=1)
    if len(plan.scored) < flags.tasks:
        raise SystemExit(
            f"--tasks is {flags.tasks}, but {flags.gym} has {len(plan.scored)} of the study's "
            f"tasks: {', '.join(plan.scored)}"
        )
    plan = dataclasses.replace(plan, scored=plan.scored[: flags.tasks])
    return _with_short_outputs(plan) if flags.backbone in SHAPES else plan


def _with_short_outputs(plan: StudyPlan) -> StudyPlan:
    """Return a study whose outputs are at most as long as its longest target, end mark included.

    A tuned model's outputs end there or before; those of random weights do not end by themselves.
    """
    config = plan.config
    tokenizer = AutoTokenizer.from_pretrained(config.backbone)
    gym = gym_folder(config.gym)
    tasks = load_catalogue(gym).tasks
    targets = {
        render(name, example)[1]
        for name in plan.scored
        for seed in config.data_seeds
        for example in load_task(gym, tasks[name], seed).test
    }
    longest = 1 + max(len(words(tokenizer, target)) for target in targets)
    down = dataclasses.replace(
        config.downstream, max_generated=min(longest, config.text.max_target)
    )
    return dataclasses.replace(plan, config=dataclasses.replace(config, downstream=down))
