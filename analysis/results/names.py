"""Names of methods, partitions and backbones: order, labels, and how others write them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mpt.config import CONTROL
from mpt.store.records import BASELINE, ZERO_SHOT

METHODS: Mapping[str, str] = {
    "maml": "MAML",
    "fomaml": "FoMAML",
    "reptile": "Reptile",
    "multitask": "MTL",
    "fine_tuning": "FT",
}
"""Method → label of those that the paper compares with prompt tuning, in its order. It decides the
order of rows and nothing else: other methods stand behind them, under their own names."""
UNTRAINED = CONTROL
"""The control: the start of the learned prompts, with nothing learned."""
META = ("maml", "fomaml", "reptile")
"""The methods that the paper calls meta prompt tuning (MPT)."""
_MORE_LABELS = {BASELINE: "PT", UNTRAINED: "untrained", ZERO_SHOT: "zero-shot"}
ALIASES: Mapping[str, str] = {"pt": BASELINE, "mtl": "multitask", "ft": "fine_tuning"}
"""How files of scores shorten the names of methods."""

PARTITION_LABELS: Mapping[str, str] = {
    "random_to_random": "R→R",
    "cls_to_cls": "Cls→Cls",
    "both_to_cls": "Both→Cls",
    "noncls_to_cls": "Non-Cls→Cls",
    "cls_to_noncls": "Cls→Non-Cls",
    "both_to_noncls": "Both→Non-Cls",
    "noncls_to_noncls": "Non-Cls→Non-Cls",
    "qa_to_qa": "QA→QA",
    "nonqa_to_qa": "Non-QA→QA",
    "nonpara_to_para": "NP→P",
}
"""Partition → label, in the order of the paper's tables."""

BACKBONES: Mapping[str, tuple[str, ...]] = {
    "T5-large": ("t5-large-lm-adapt", "t5-v1_1-large", "t5-large"),
    "T5-base": ("t5-base-lm-adapt", "t5-v1_1-base", "t5-base"),
    "T5-XL": ("t5-xl-lm-adapt", "t5-v1_1-xl", "t5-xl"),
    "BART-large": ("bart-large",),
    "GPT2-large": ("gpt2-large",),
}
"""The paper's name of a backbone → last parts of the ids and folders that are that model."""


def canonical_method(name: str) -> str:
    """Return a method's name as records have it; an unknown one stays."""
    return ALIASES.get(name.lower(), name.lower())


def method_label(name: str) -> str:
    """Return a method's label; an unknown one is its name. A mark behind it stays (`Place`)."""
    method, blank, mark = name.partition(" ")
    return {**METHODS, **_MORE_LABELS}.get(method, method) + blank + mark


def partition_label(name: str) -> str:
    """Return a partition's label; an unknown one is its name."""
    return PARTITION_LABELS.get(name, name)


def paper_backbone(name: str) -> str | None:
    """Return the paper's name of a backbone id or folder; None if the paper has no such model."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((label for label, names in BACKBONES.items() if last in names), None)


def gym_label(gym: str) -> str:
    """Return "gym NAME" for a title; of a folder that says itself that it is one, its name.

    Args:
        gym: "embedded", or a folder, of which the last part is enough.
    """
    name = gym.rstrip("/").rsplit("/", 1)[-1]
    return name if "gym" in name.lower() else f"gym {name}"


def rank(name: str, order: Collection[str]) -> tuple[int, str]:
    """Return a name's place: those of `order` first, in its order, then the others by name."""
    known = list(order)
    return (known.index(name), "") if name in known else (len(known), name)


def in_order(recorded: Iterable[str], order: Collection[str]) -> list[str]:
    """Return names without repeats, by their `rank`."""
    return sorted(set(recorded), key=lambda name: rank(name, order))
