"""A small study whose numbers can be worked out by hand: scores are alike on all data seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results_factory import Results, flat

from analysis.findings.finding import Finding
from analysis.findings.records import Findings

PT: dict[str, dict[str, float]] = {
    "cls_to_cls": {"a": 0.5, "b": 0.4},
    "qa_to_qa": {"c": 0.5, "d": 0.5},
    "nonpara_to_para": {"e": 0.5},
}
"""Partition → task → score of plain prompt tuning."""
SCORES: dict[tuple[str, str, int], dict[str, float]] = {
    ("maml", "cls_to_cls", 42): {"a": 0.60, "b": 0.50},
    ("maml", "cls_to_cls", 1042): {"a": 0.55, "b": 0.48},
    ("multitask", "cls_to_cls", 42): {"a": 0.55, "b": 0.44},
    ("multitask", "cls_to_cls", 1042): {"a": 0.56, "b": 0.45},
    ("maml", "qa_to_qa", 42): {"c": 0.60, "d": 0.70},
    ("maml", "qa_to_qa", 1042): {"c": 0.61, "d": 0.70},
    ("multitask", "qa_to_qa", 42): {"c": 0.50, "d": 0.50},
    ("multitask", "qa_to_qa", 1042): {"c": 0.51, "d": 0.50},
}
"""(method, partition, upstream seed) → task → score."""
OTHER = "pico-gpt"
"""The other backbone."""


def arg(scores: dict[str, float], baseline: dict[str, float]) -> float:
    """Return ARG in %, as the paper defines it."""
    return 100 * sum((scores[t] - baseline[t]) / baseline[t] for t in baseline) / len(baseline)


def finding_about(found: Findings, question: str) -> Finding:
    """Return the one finding whose question holds some words."""
    (finding,) = (one for one in found.findings if question in one.question)
    return finding


def _minus(text: str) -> str:
    return text.replace("-", "−")


def written(value: float, unit: str, low: float, high: float) -> str:
    """Write "+1.0 % [0.5, 1.5]" in a way of its own."""
    return _minus(f"{value:+.1f}{unit} [{low:.1f}, {high:.1f}]")


def seeded(seed: int, trajectory: str) -> dict[str, Any]:
    """Return the fields of a point with an upstream seed; 42 is the study's own."""
    own = {} if seed == 42 else {"seed": seed}
    return {
        "settings": {"inner_lr": 1.0, "outer_lr": 0.1, **own},
        "trajectory": f"{trajectory} {seed}",
    }


def replay(root: Path) -> Results:
    """Return two methods on two partitions with two upstream seeds."""
    made = Results(root)
    for (method, partition, seed), scores in SCORES.items():
        fields = seeded(seed, f"{method} {partition}")
        made.point(method, partition, flat(scores), flat(PT[partition]), point=fields)
    return made


def whole_study(root: Path) -> Results:
    """Return the replay with every sweep, another backbone and a search."""
    made = replay(root)
    sweeps: tuple[tuple[dict[str, Any], dict[str, float]], ...] = (
        ({"target_shots": 64}, {"a": 0.52, "b": 0.42}),
        ({"source_shots": 32}, {"a": 0.65, "b": 0.50}),
        ({"source_set": "12", "sources": 12}, {"a": 0.55, "b": 0.42}),
    )
    for study, scores in sweeps:
        fields = seeded(42, f"maml {sorted(study.items())}")
        baseline = flat(PT["cls_to_cls"])
        made.point("maml", "cls_to_cls", flat(scores), baseline, point=fields, **study)
    for backbone, score in (("embedded", 0.6), (OTHER, 0.45)):
        fields = seeded(42, f"maml {backbone}")
        baseline = flat(PT["nonpara_to_para"])
        made.point(
            "maml", "nonpara_to_para", flat({"e": score}), baseline, point=fields,
            backbone=backbone,
        )  # fmt: skip
    search(made)
    return made


SEARCHED = {
    (inner, outer, seed): 0.5 + 0.1 * outer + 0.01 * inner + noise
    for inner in (0.0, 1.0, 2.0)
    for outer in (0.0, 1.0, 2.0)
    for seed, noise in ((42, 0.0), (1042, 0.001 * inner))
}
"""(inner rate, outer rate, upstream seed) → score on the one validation task, baseline 0.5."""


def search(made: Results, method: str = "maml") -> None:
    """Add the points of a search."""
    for (inner, outer, seed), score in SEARCHED.items():
        fields = seeded(seed, f"search {method} {inner} {outer}")
        fields["settings"] |= {"inner_lr": inner, "outer_lr": outer}
        made.point(
            method, "random_to_random", flat({"v": score}), flat({"v": 0.5}), point=fields,
            role="validation",
        )  # fmt: skip
