"""Settings as frozen, keyword-only dataclasses; all checks are made at once, at construction."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from mpt.errors import UsageError
from mpt.rules import (
    ANSWERS,
    DIFFERENT_TASKS,
    EPOCH_ORDER,
    NOT_NEGATIVE,
    OPTIONAL_COUNT,
    OPTIONAL_SEED,
    POSITIVE,
    RATE,
    SEEDS,
    SWITCH,
    at_least,
    check,
    exchanges,
    is_int,
    is_number,
    optional,
)

DATA_SEEDS = (13, 21, 42, 87, 100)
SEED_STEP = 1000
"""Between the upstream seeds of one train seed, and between its downstream starts: those of 42 and
43 have none in common."""
METHODS = ("maml", "fomaml", "reptile", "multitask")
"""The paper's upstream methods."""
CONTROL = "untrained"
"""The start itself with nothing learned."""

OWN_METHODS = ("path", CONTROL)
"""Upstream methods beside them."""
_REGISTERED: list[str] = []
_WITHOUT_INNER = {"multitask", CONTROL, "prompt_tuning", "fine_tuning", "zero_shot"}


def known_methods() -> tuple[str, ...]:
    """Return the names of all upstream methods, registered ones last."""
    return (*METHODS, *OWN_METHODS, *_REGISTERED)


def registered_methods() -> tuple[str, ...]:
    """Return the names of the upstream methods that are not built in."""
    return tuple(_REGISTERED)


def register_method_name(name: str, *, adapts: bool = True) -> None:
    """Let a method's name be used in settings (see `mpt.upstream.registry.register`).

    Args:
        name: the method's name.
        adapts: whether it has an inner loop.
    """
    if name not in known_methods():
        _REGISTERED.append(name)
    (_WITHOUT_INNER.discard if adapts else _WITHOUT_INNER.add)(name)


def adapts(method: str) -> bool:
    """Return whether `inner_lr` and `inner_steps` mean anything to a method."""
    return method not in _WITHOUT_INNER


EMBEDDED_BACKBONES = ("embedded", "embedded-bart", "embedded-gpt2")
"""The packaged backbones: a T5, a BART and a GPT-2; they share studies, spaces and settings."""
SMOLLM2 = "smollm2"
"""The name of SmolLM2-135M-Instruct as a package brings it along (`mpt.backbones.convert`)."""
PUBLISHED_BACKBONES = (
    "google/t5-base-lm-adapt",
    "google/t5-large-lm-adapt",
    "google/t5-xl-lm-adapt",
    "facebook/bart-large",
    "openai-community/gpt2-large",
)
"""Hub ids of the paper's backbones (Table 5)."""


def near_backbone(name: str) -> str | None:
    """Return the known name that an unknown one was probably meant to be; None if none is near."""
    known = (*EMBEDDED_BACKBONES, SMOLLM2, *PUBLISHED_BACKBONES)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return near[0] if near and near[0] != name else None


TEMPLATES = ("plain", "chat")
POSITIONS = ("prepend", "append", "append_padded")
PRECISIONS = ("float32", "bfloat16", "float16", "float64")
AVERAGES = ("last", "polynomial", "schedule_free")
STARTS = ("names", "drawn", "words")
TUNED_FROM = ("learned", "chosen", "raced")
"""Which prompt a target is tuned from, see `DownstreamConfig.start`."""
SECOND_ORDER = ("auto", "finite_difference", "exact", "higher", "unrolled")


def stepped_seeds(train_seed: int, count: int) -> tuple[int, ...]:
    """Return a train seed and the next ones, `SEED_STEP` apart."""
    return tuple(train_seed + SEED_STEP * n for n in range(count))


def fresh_seeds(train_seed: int, compared: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return further upstream seeds, that none of the compared ones is."""
    used = len(compared)
    free = (n for n in stepped_seeds(train_seed, 3 * used + count)[used:] if n not in compared)
    return tuple(itertools.islice(free, count))


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The soft prompt φ ∈ R^{P×d}."""

    length: int = 100
    """P, virtual tokens."""
    position: str = "prepend"
    """Where φ stands: "prepend" (paper) or "append", right after the input (released code, but
    padding-invariantly); "append_padded": after the input's padding to the longest of its batch,
    exactly as in the released code, so that a row's numbers depend on its batch."""

    def __post_init__(self) -> None:
        check(
            self,
            length=at_least(1),
            position=((lambda p: p in POSITIONS), f"one of {', '.join(POSITIONS)}"),
        )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How an example becomes token ids (recipe rows 7 and 8)."""

    max_input: int = 512
    """Tokens of the input, end mark included; longer inputs are truncated."""
    max_target: int = 64
    """Tokens of the target, end mark included; longer targets are truncated."""
    template: str = "plain"
    """"plain" text to text (paper), or "chat": the template that the tokenizer brings along."""

    def __post_init__(self) -> None:
        check(
            self,
            max_input=at_least(2),
            max_target=at_least(2),
            template=((lambda t: t in TEMPLATES), '"plain" or "chat"'),
        )


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """One trajectory of upstream learning; its number of steps is not a part of it (rungs)."""

    tuned: ClassVar[str] = "prompt"
    """What downstream runs tune."""
    method: str = "maml"
    """Row of `mpt.upstream`: which outer gradient."""
    inner_lr: float = 3e-5
    """α, learning rate of the inner steps."""
    outer_lr: float = 0.5
    """β, learning rate of the outer Adafactor."""
    decay_horizon: int | None = None
    """T: the outer rate falls linearly, β · (1 − (t − 1) / T) at step t = 1 … T, and there is no
    step after T. A run of T steps is then no part of a longer one. None: β stays (paper)."""
    average: str = "last"
    """φ* at a step: the "last" iterate (paper); the "polynomial" average of all iterates, which
    weighs later ones more (see `mpt.upstream.engine.AVERAGE_POWER`); or "schedule_free" (Defazio
    et al. 2024): their plain average, with gradients taken near it."""
    inner_steps: int = 1
    """k, inner steps per episode; multitask learning has none and ignores it."""
    inner_optimiser: str = "sgd"
    """What takes the inner steps: "sgd" (paper), or "adafactor" as downstream, with fresh moments
    in every episode; multitask learning has no inner steps and ignores it."""
    batch_size: int = 2
    """Examples in the support batch and in the query batch, or in a multitask batch."""
    items_per_step: int = 2
    """Episodes whose gradients are put together in one outer step: (task, data seed) items, or
    batches of multitask learning."""
    items_per_pass: int = 1
    """How many of them share passes, of as many times the rows. 1: they take turns. A registered
    method gets its episodes one at a time and ignores it."""
    support_draw: str = "apart"
    """How the support batches of an episode's inner steps are drawn: "apart", each without
    replacement, or "jointly" as one draw, with replacement where the file has fewer rows than
    that (released Reptile). Multitask learning has no such batches and ignores it."""
    epoch_order: str = "reshuffled"
    """Order of items, or of rows in multitask learning, from epoch to epoch: "reshuffled" or
    "repeated" (released multitask learning)."""
    answers: str = "first"
    """Which of a row's answers is trained on: the "first", or a "random" one at each reading
    (released code)."""
    max_target: int | None = None
    """Tokens of an upstream target, end mark included, where the method has a limit of its own
    (released code: 128 in multitask learning). None: that of the study's texts."""
    dropout: float = 0.0
    """Dropout rate of the backbone while training upstream (released code: 0.1)."""
    second_order: str = "auto"
    """How MAML computes its second-order term, see `mpt.upstream.second_order`; "auto" chooses by
    the backbone's dtype and size. The other methods have no such term."""
    reptile_difference: str = "accumulated"
    """How Reptile forms φ − φ_k: "accumulated" in a tensor of its own, or "subtracted" as the
    released code does, whose φ itself walks and is rounded at every inner step (recipe row 15:
    in float32 nearly nothing but rounding is left of it)."""
    activation_checkpointing: bool = False
    """Recompute activations in first-order passes: less memory, one more forward pass each."""
    seed: int | None = None
    """Upstream seed: root of this trajectory's start, episodes and dropout. Configurations that
    differ in it alone are replicates of one configuration. None: the study's train seed."""
    start: str = "names"
    """What the starting prompt is made of: the first source "names" (paper; many sources give
    every seed the same start), names "drawn" by the seed, or "words" of the vocabulary drawn by
    it, as in plain prompt tuning: its gain is then all learned."""
    start_seed: int | None = None
    """Seed of the start alone. None: the upstream seed's; the members of a soup share one."""
    soup: int = 1
    """M, runs of this configuration whose mean is φ*, each from the same start with an upstream
    seed of its own and of the given steps (see `mpt.upstream.soup`): M times the cost."""
    extra: tuple[tuple[str, float], ...] = ()
    """Settings of the method's own, (name, value): a registered method reads them as attributes,
    `config.mu`."""

    def __post_init__(self) -> None:
        check(
            self,
            method=((lambda m: m in known_methods()), f"one of {', '.join(known_methods())}"),
            inner_lr=POSITIVE,
            outer_lr=POSITIVE,
            decay_horizon=OPTIONAL_COUNT,
            average=((lambda a: a in AVERAGES), f"one of {', '.join(AVERAGES)}"),
            inner_steps=at_least(1),
            inner_optimiser=((lambda o: o in ("sgd", "adafactor")), '"sgd" or "adafactor"'),
            batch_size=at_least(1),
            items_per_step=at_least(1),
            items_per_pass=at_least(1),
            support_draw=((lambda s: s in ("apart", "jointly")), '"apart" or "jointly"'),
            epoch_order=EPOCH_ORDER,
            answers=ANSWERS,
            max_target=optional(at_least(2)),
            dropout=RATE,
            second_order=((lambda m: m in SECOND_ORDER), f"one of {', '.join(SECOND_ORDER)}"),
            reptile_difference=(
                (lambda m: m in ("accumulated", "subtracted")),
                '"accumulated" or "subtracted"',
            ),
            activation_checkpointing=SWITCH,
            seed=OPTIONAL_SEED,
            start=((lambda s: s in STARTS), f"one of {', '.join(STARTS)}"),
            start_seed=OPTIONAL_SEED,
            soup=at_least(1),
            extra=(
                (lambda v: all(isinstance(n, str) and is_number(x) for n, x in v)),
                "pairs of a name and a finite number",
            ),
        )

    def __getattr__(self, name: str) -> float:
        """Return a setting of the method's own."""
        if not name.startswith("_"):
            for own, value in self.__dict__.get("extra", ()):
                if own == name:
                    return value
        raise AttributeError(f"{self.__dict__.get('method')} has no setting {name!r}")


@dataclass(frozen=True, kw_only=True)
class DownstreamConfig:
    """Prompt tuning on one target task (§5.3); each learning rate is a run."""

    lrs: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2)
    """Adafactor learning rates; ties on dev keep the earlier one."""
    batch_size: int = 8
    """Examples per step."""
    steps: int = 3000
    """Optimiser steps."""
    max_epochs: int | None = None
    """Most epochs over the train rows: a run on few rows ends earlier (recipe row 12). None: no
    cap."""
    eval_every: int = 50
    """Steps between dev evaluations; the state after the last step is always evaluated."""
    start: str = "learned"
    """Which prompt a target is tuned from: the "learned" one (paper), or of those at hand the one
    "chosen" by its loss on the target's own train and dev rows before any tuning, or "raced": the
    one with the best dev score after the first steps of tuning (see `mpt.trial.starts`)."""
    race_steps: int | None = None
    """Steps of a race of starts, at most those of the run. None: a third of the run, rounded down,
    but 2 at least. Only where starts are raced."""
    select: str = "best"
    """Which prompt is tested: "best" on dev (first on ties) or "last", where the best dev score of
    the run still chooses the learning rate (released code)."""
    patience: int | None = None
    """Evaluations in a row without a better dev score after which a run ends. None: never."""
    catch_up: float | None = None
    """A run ends when its best dev score is more than this (a fraction) below that of another
    learning rate of its family after the same step, or when an earlier rate has the highest score
    there is (see `mpt.downstream.stopping`). None: never."""
    catch_up_after: int = 4
    """Evaluations of a run before `catch_up` compares its score."""
    dropout: float = 0.0
    """Dropout rate of the backbone while tuning."""
    epoch_order: str = "reshuffled"
    """Order of the train rows from epoch to epoch: "reshuffled" or "repeated" (released code)."""
    answers: str = "first"
    """Which of a train row's answers is trained on: the "first", or a "random" one at each reading
    (released code). All of them count as right in an evaluation."""
    loss_parts: int = 1
    """A step's loss is the mean of this many token means, each over every n-th row of the batch:
    1 is one token mean, 2 what two devices with half the batch each make of it (released code)."""
    bias_decay: bool = True
    """Fine-tuning: whether weight decay acts on weights with "bias" in their name, which in a T5
    are the relative attention biases (released code: it does not)."""
    max_test: int | None = 1000
    """Test rows used (recipe row 23); None: all."""
    max_dev: int | None = None
    """Dev rows used; None: all."""
    sample: str = "first"
    """Which rows are used where not all are: the "first" ones (released code), or "stratified", a
    random sample in which every label keeps its share (test files are often sorted by label). It
    depends on the task alone: it is the same for every method, learning rate and seed."""
    max_generated: int = 64
    """Longest generated output in new tokens: what the decoder starts from is not counted. (The
    released code's limit of 128 counts its start token: 127 here.)"""
    beams: int = 1
    """Beams of generation; 1 is greedy (paper). The released code searches with 4 and stops early.
    With more than 1, or with a repetition penalty, every output is really generated."""
    repetition_penalty: float = 1.0
    """Scores of tokens already generated are divided by it if positive and else multiplied; 1 is
    none, the released code has 2.5."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / length^length_penalty."""

    def __post_init__(self) -> None:
        check(
            self,
            lrs=(
                (lambda v: len(v) > 0 and len(set(v)) == len(v) and all(map(POSITIVE[0], v))),
                "distinct finite numbers > 0, at least one",
            ),
            batch_size=at_least(1),
            steps=at_least(1),
            max_epochs=OPTIONAL_COUNT,
            eval_every=at_least(1),
            patience=OPTIONAL_COUNT,
            catch_up=optional(NOT_NEGATIVE),
            catch_up_after=at_least(1),
            start=((lambda s: s in TUNED_FROM), f"one of {', '.join(TUNED_FROM)}"),
            race_steps=OPTIONAL_COUNT,
            select=((lambda s: s in ("best", "last")), '"best" or "last"'),
            dropout=RATE,
            epoch_order=EPOCH_ORDER,
            answers=ANSWERS,
            loss_parts=at_least(1),
            bias_decay=SWITCH,
            max_test=OPTIONAL_COUNT,
            max_dev=OPTIONAL_COUNT,
            sample=((lambda s: s in ("first", "stratified")), '"first" or "stratified"'),
            max_generated=at_least(1),
            beams=at_least(1),
            repetition_penalty=POSITIVE,
            length_penalty=NOT_NEGATIVE,
        )
        if self.race_steps is not None and self.start != "raced":
            raise UsageError(
                f"DownstreamConfig: race_steps is {self.race_steps}, but must be None where start "
                f'is "{self.start}", which runs no race; set it to "raced" (tuning_start in '
                "Python, --tuning-start raced)"
            )

    def steps_on(self, rows: int) -> int:
        """Return the steps of a run on a task of this many train rows."""
        if self.max_epochs is None:
            return self.steps
        return min(self.steps, self.max_epochs * math.ceil(rows / self.batch_size))

    def race_on(self, rows: int) -> DownstreamConfig:
        """Return the recipe of a race of starts on a task of this many train rows: fewer steps."""
        whole = self.steps_on(rows)
        return dataclasses.replace(self, steps=min(whole, self.race_steps or max(2, whole // 3)))


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything but the searched point: what is learned from, what is scored, and how."""

    backbone: str = "embedded"
    """One of `EMBEDDED_BACKBONES`, a Hub id or a local path."""
    gym: str = "embedded"
    """"embedded" or a directory of few-shot files."""
    partition: str = "random_to_random"
    """One of the ten partitions; its source tasks are learned from."""
    data_seeds: tuple[int, ...] = DATA_SEEDS
    """Few-shot samples per task; both upstream items and downstream runs go over them."""
    train_seed: int = 42
    """Root of every generator."""
    precision: str = "float32"
    """Number format of the backbone's weights and activations; `load_backbone` refuses "float16".
    Prompts and optimisers are float32 with any of them."""
    upstream_precision: str | None = None
    """Number format of the backbone in upstream learning with an inner loop; None: `precision`. In
    bfloat16 the published inner rates do nothing: the model sees the prompt rounded, and a step of
    3e-5 is lost in it (recipe row 10)."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    """The soft prompt."""
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    """Lengths downstream."""
    upstream_lengths: TextConfig | None = None
    """Lengths upstream where they differ (recipe row 8); None: those downstream."""
    downstream: DownstreamConfig = dataclasses.field(default_factory=DownstreamConfig)
    """Prompt tuning on the validation tasks."""
    validation: tuple[str, ...] = ()
    """Tasks that a search is scored on and nothing is learned from. With none
    named, and on a gym that has none of them, they are those of the catalogue."""
    target: tuple[str, ...] = ()
    """Target tasks of a partition that a replay is scored on. With none named, and on a partition
    that has none of them, they are all of the partition's."""
    classification: str = "published"
    """How a search scores classification tasks whose metric is macro-F1: as "published" (a
    predicted word that is no label counts as a class of its own, so one stray word among 64
    outputs takes .98 to .79), over the "gold" labels alone, or by "exact" match. Target tasks are
    always scored as published."""
    replaced: tuple[tuple[str, str], ...] = ()
    """(task of the catalogue, task in its place): declared where tasks cannot be had any more."""
    replicates: int = 1
    """Upstream seeds of a configuration: the train seed, then `SEED_STEP` further each; one, as in
    the paper, cannot show how far they differ."""
    upstream_seeds: tuple[int, ...] = ()
    """Upstream seeds in place of those, the first for every configuration."""
    fresh_replicates: int = 0
    """Further upstream seeds that a winner is run with after it was chosen, to be reported on."""
    starts: int = 1
    """Downstream starts of a cell (task × data seed × prompt), whose scores are averaged. Each has
    a train seed of its own, the study's and then `SEED_STEP` further each, which draws the start
    of plain prompt tuning, the order of train rows and dropout."""
    target_seeds: tuple[int, ...] = ()
    """Upstream seeds of a replay on target tasks: others than those that settings were chosen on.
    None: the same ones."""

    def __post_init__(self) -> None:
        check(
            self,
            data_seeds=(
                (lambda v: len(v) > 0 and len(set(v)) == len(v) and all(map(is_int, v))),
                "distinct whole numbers, at least one",
            ),
            train_seed=at_least(0),
            precision=((lambda p: p in PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
            validation=DIFFERENT_TASKS,
            target=DIFFERENT_TASKS,
            upstream_precision=(
                (lambda p: p is None or p in PRECISIONS),
                f"one of {', '.join(PRECISIONS)} or None",
            ),
            replaced=(exchanges, "pairs of tasks, in which no task stands twice"),
            classification=(
                (lambda c: c in ("published", "gold", "exact")),
                '"published", "gold" or "exact"',
            ),
            upstream_seeds=SEEDS,
            target_seeds=SEEDS,
            replicates=at_least(1),
            fresh_replicates=at_least(0),
            starts=at_least(1),
        )

    def upstream_format(self, method: str) -> str:
        """Return the number format in which a method learns upstream.

        A method without an inner loop has no inner rate to lose, and learns in `precision`.
        """
        own = self.upstream_precision if adapts(method) else None
        return own or self.precision

    @property
    def seeds(self) -> tuple[int, ...]:
        """Upstream seeds that configurations are compared on."""
        return self.upstream_seeds or self._seeds_from(0, self.replicates)

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """Upstream seeds that only a winner is run with."""
        return fresh_seeds(self.train_seed, self.seeds, self.fresh_replicates)

    @property
    def start_seeds(self) -> tuple[int, ...]:
        """Train seeds of the downstream starts, the study's own first."""
        return stepped_seeds(self.train_seed, self.starts)

    def _seeds_from(self, first: int, count: int) -> tuple[int, ...]:
        return stepped_seeds(self.train_seed, first + count)[first:]

    @property
    def upstream_text(self) -> TextConfig:
        """Lengths upstream."""
        return self.text if self.upstream_lengths is None else self.upstream_lengths
