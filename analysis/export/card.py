"""The model card of a learned prompt: what it is, what was measured, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from mpt.keys import flat
from mpt.words import counted

from ..findings.identity import identity
from ..results.cells import scores_of
from ..results.names import method_label, partition_label
from ..results.summary import summary_of
from ..results.upstream_seeds import upstream_seed
from ..tables.arg import seeds_note
from ..tables.render import escape_markdown
from ..tables.table import MISSING, shown, shown_interval
from .file import UNKNOWN
from .usage import usage

if TYPE_CHECKING:
    from ..results.cells import Cell
    from ..results.sections import Section
    from ..results.summary import Summary

TAGS = ("prompt-tuning", "soft-prompt", "meta-prompt-tuning", "few-shot")
PIPELINES = {"SEQ_2_SEQ_LM": "text2text-generation", "CAUSAL_LM": "text-generation"}
"""PEFT's word for a kind of model → the Hub's word for its task."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a card is about."""

    section: Section
    """With this point alone."""
    cell: Cell
    averaged: Cell | None
    """Its configuration over several upstream seeds; None where there is one."""
    base_model: str
    """Id on the Hub, or the last part of a folder's path."""
    on_hub: bool
    task_type: str
    """PEFT's word for the kind of model."""
    licence: str
    """The Hub's id of a licence; "unknown" where none is chosen."""

    behind: bool = False
    """Whether the prompt stands behind the input, where PEFT cannot put it."""
    chat: bool = False
    """Whether inputs are written in the tokenizer's chat template."""

    @cached_property
    def summary(self) -> Summary | None:
        """What is measured of the point."""
        return summary_of(self.cell)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before any number, and whoever uploads before that."""
        cell, study = self.cell, self.cell.study
        sentences = []
        if study.smoke:
            sentences.append(
                "Of a smoke run: it shows that the path works; its numbers mean nothing."
            )
        elif study.partial:
            sentences.append(f"Partial: {study.partial.removeprefix('partial: ')}.")
        if cell.status != "ok":
            sentences.append(f"Status of the point: {cell.status}. {cell.note}".strip())
        done, of = cell.counts
        if done < of:
            sentences.append(f"{done} of {of} downstream runs are there.")
        if cell.place.role == "validation":
            sentences.append(
                "Scored on validation tasks, which settings are chosen by: of the best of several "
                "points this number is too high."
            )
        if self.averaged is None:
            sentences.append(
                "One upstream seed: the prompt of another may score outside the interval."
            )
        if not self.on_hub:
            sentences.append(
                f"The base model {self.base_model} is no id on the Hub; --base-model names it."
            )
        if self.licence == UNKNOWN:
            sentences.append("No licence is chosen; --license names one.")
        return sentences


def card(said: Published) -> str:
    """Return a model card: YAML front matter and Markdown."""
    cell = said.cell
    parts = [
        f"---\n{yaml.safe_dump(_front(said), sort_keys=False, allow_unicode=True)}---\n",
        f"# {escape_markdown(_title(said))}\n",
        "A soft prompt for a frozen language model, learned upstream on many tasks so that prompt "
        "tuning on a new few-shot task starts from it. It is a start and no finished model: tune "
        "it on the task at hand.\n",
        *([_warned(said.warnings)] if said.warnings else []),
        f"## What was studied\n\n{_paragraph(identity(said.section))}\n",
        f"## Score\n\n{_score(said)}\n",
        _tasks(cell, said.summary),
        f"## Settings\n\n{_table(('setting', 'value'), _settings(cell))}\n",
        f"## Use\n\n{usage(said)}\n",
        f"## Where it comes from\n\n{_table(('what', 'value'), _origin(cell))}\n",
    ]
    return "\n".join(parts)


def _front(said: Published) -> dict[str, Any]:
    cell = said.cell
    return {
        **({"base_model": said.base_model} if said.on_hub else {}),
        "library_name": "transformers" if said.behind else "peft",
        "license": said.licence,
        "pipeline_tag": PIPELINES[said.task_type],
        "tags": [*TAGS, cell.point.method, *(["smoke-run"] if cell.study.smoke else [])],
    }


def _title(said: Published) -> str:
    cell_place = said.cell.place
    return (
        f"{method_label(cell_place.method)} prompt for {said.base_model.rsplit('/', 1)[-1]}, "
        f"learned on {partition_label(cell_place.partition)}"
    )


def _warned(lines: Iterable[str]) -> str:
    return "".join(f"> **{escape_markdown(line)}**\n>\n" for line in lines)


def _paragraph(sentences: Iterable[str]) -> str:
    return "\n".join(map(escape_markdown, sentences))


def _score(said: Published) -> str:
    summary, cell = said.summary, said.cell
    if summary is None or summary.value is None:
        return "There is no score."
    seed, tasks = upstream_seed(cell), len(cell.tasks)
    lines = [
        f"**ARG {_percent(summary.value)}** {_interval(summary.interval)}: the average relative "
        f"gain over plain prompt tuning, the mean over {counted(tasks, 'task')} of "
        "(s − s_PT) / s_PT, where s is the mean test score over "
        f"{counted(len(summary.seeds), 'data seed')} ({', '.join(map(str, summary.seeds))}).",
        f"It is of this prompt, of upstream seed {seed}. The 95 % interval is over data seeds.",
    ]
    if summary.gain.defined < summary.gain.of:
        lines.append(
            f"It is over {summary.gain.defined} of {summary.gain.of} tasks; the others have no "
            "relative gain."
        )
    family = None if said.averaged is None else summary_of(said.averaged)
    if family is not None and family.value is not None:
        lines.append(
            f"The same settings: ARG {_percent(family.value)} {_interval(family.interval)}, "
            f"{seeds_note(family)}. This interval is over upstream seeds and data seeds."
        )
    return "\n".join(map(_escaped_but_bold, lines))


def _tasks(cell: Cell, summary: Summary | None) -> str:
    ours, theirs = scores_of(cell.tasks), scores_of(cell.baseline)
    gains = {} if summary is None else {one.task: one for one in summary.gain.tasks}
    heads = ["task", "s_PT", "s", "gain %"]
    heads += [f"seed {seed}: PT → prompt" for seed in cell.seeds]
    rows = []
    for task in sorted(cell.tasks):
        gain = gains.get(task)
        row = [task, *([MISSING] * 3)]
        if gain is not None:
            percent = None if gain.gain is None else 100 * gain.gain
            row[1:] = [_number(gain.baseline, 4), _number(gain.score, 4), _number(percent, 2)]
        for seed in cell.seeds:
            pair = (theirs.get(task, {}).get(seed), ours.get(task, {}).get(seed))
            row.append(" → ".join(_number(one, 4) for one in pair))
        rows.append(row)
    return f"Scores of every task (fractions):\n\n{_table(heads, rows)}\n"


def _settings(cell: Cell) -> Iterator[tuple[str, str]]:
    yield "method", cell.point.method
    yield "upstream steps", str(cell.steps)
    for name, value in flat(cell.config).items():
        if name != "method":
            yield name, json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _origin(cell: Cell) -> Iterator[tuple[str, str]]:
    origin = cell.point.provenance
    versions: Mapping[str, Any] = origin.get("versions") or {}
    yield "point", cell.key
    yield "study", cell.study.key
    yield "trajectory", cell.trajectory
    yield "digest of the prompt", str(cell.point.prompt)
    yield "digest of the base model", cell.study.backbone_digest
    yield "learned", cell.point.created
    yield "commit of mpt", str(origin.get("commit") or "not recorded")
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items())
    yield (
        "upstream cost",
        f"{cell.point.cost.steps:.0f} steps, {cell.point.cost.tokens:.0f} tokens, "
        f"{cell.point.cost.seconds:.0f} s of one worker",
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *(map(escape_markdown, r) for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else shown(value, digits)


def _percent(value: float) -> str:
    return f"{'+' if value > 0 else ''}{shown(value, 2)} %"


def _interval(interval: tuple[float, float] | None) -> str:
    return shown_interval(interval, 2) or "(no interval)"


def _escaped_but_bold(text: str) -> str:
    """Return a line of ours: its stars are meant."""
    return escape_markdown(text).replace(r"\*\*", "**")
