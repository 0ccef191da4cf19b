"""What every upstream method and every backbone must do, as suites that others can run.

    import mpt.testing

    mpt.testing.check_upstream_method("mine")

Each check raises `AssertionError` with the number that failed; a suite returns the names of the
checks that passed. The toy model and tasks are small enough for milliseconds.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.gym.fewshot import Example, FewShotTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mpt.backbones import Backbone
    from mpt.upstream.engine import UpstreamRun

PROMPT = PromptConfig(length=3)
STEPS = 3


def check_upstream_method(method: str | Callable[..., Any], **settings: Any) -> list[str]:
    """Hold an upstream method to what every method must do, on a toy model.

    Args:
        method: its registered name, that of an installed one, or the function that was registered.
        **settings: fields of `UpstreamConfig` or own settings in place of the defaults.

    Returns:
        The names of the checks, all of which passed.

    Raises:
        UsageError: there is no such method.
        AssertionError: a check failed; the text says which, and by how much.
    """
    from mpt.api.methods import method_named
    from mpt.upstream.registry import config_of

    name = method if isinstance(method, str) else _name_of(method)
    method_named(name)
    config = config_of(name, {"inner_lr": 20.0, "outer_lr": 0.3, **settings})
    suite = _MethodSuite(config)
    checks = [check for check in dir(suite) if check.startswith("check_")]
    for check in checks:
        getattr(suite, check)()
    return [check.removeprefix("check_").replace("_", " ") for check in checks]


def check_backbone(backbone: str | Backbone) -> list[str]:
    """Hold a language model to what every backbone must do; seconds for a small one.

    Args:
        backbone: a loaded one, or a name (a Hub id or a local checkpoint).

    Returns:
        The checks with their numbers, all of which passed.

    Raises:
        UsageError: a check failed; the text holds the number.
    """
    from mpt.backbones import load_backbone
    from mpt.backbones.check import findings, require

    model = load_backbone(backbone, check=False) if isinstance(backbone, str) else backbone
    require(model)
    return [str(finding) for finding in findings(model)]


def _name_of(function: Callable[..., Any]) -> str:
    from mpt.upstream.registry import UPSTREAM_METHODS

    for name, one in UPSTREAM_METHODS.items():
        if one.outer_gradient is function:
            return name
    return str(getattr(function, "__name__", function))


class _MethodSuite:
    """The checks of one method with one set of settings."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config, self._backbone = config, toy_backbone()
        self._tasks = [toy_task(name, seed) for name in ("toy-one", "toy_two") for seed in (1, 2)]

    def _run(self, config: UpstreamConfig | None = None, root_seed: int = 42) -> UpstreamRun:
        from mpt.upstream.engine import UpstreamRun

        return UpstreamRun(
            self._backbone, self._tasks, config or self._config, PROMPT, TextConfig(), root_seed
        )

    def check_gradient_is_finite_detached_and_of_the_prompts_shape(self) -> None:
        from mpt.upstream.losses import ItemsLoss
        from mpt.upstream.one_episode import OnlyLoss
        from mpt.upstream.registry import UPSTREAM_METHODS

        run = self._run()
        episode = run._episode(0)
        loss = OnlyLoss(ItemsLoss(self._backbone, run._data, [episode.item]))
        prompt = run.prompt.clone()
        before = prompt.clone()
        method = UPSTREAM_METHODS[self._config.method]
        gradient, value = method.outer_gradient(loss, prompt, episode, run._config)
        assert gradient.shape == prompt.shape, (
            f"the gradient is {tuple(gradient.shape)}, but must be {tuple(prompt.shape)}"
        )
        assert bool(gradient.isfinite().all()), "the gradient is not finite"
        assert not gradient.requires_grad, "the gradient must be detached"
        assert isinstance(value, float), f"the loss is {type(value).__name__}, but must be a float"
        assert math.isfinite(value), f"the loss is {value}"
        assert bool((prompt == before).all()), "the prompt was changed"

    def check_state_is_the_same_however_it_was_reached(self) -> None:
        import torch

        straight, first, resumed = self._run(), self._run(), self._run()
        straight.advance(STEPS + 1)
        first.advance(1)
        torch.manual_seed(0)  # the global generator has no say
        resumed.load_state_dict(first.state_dict())
        resumed.advance(STEPS)
        difference = (straight.prompt - resumed.prompt).abs().max()
        assert difference == 0, f"resumed and straight runs differ by {float(difference)}"

    def check_weights_and_the_global_generator_are_left_alone(self) -> None:
        import torch

        weights = {k: v.clone() for k, v in self._backbone.model.state_dict().items()}
        state = torch.get_rng_state()
        self._run(dataclasses.replace(self._config, dropout=0.1)).advance(2)
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        for name, weight in self._backbone.model.state_dict().items():
            assert torch.equal(weight, weights[name]), f"weight {name} was changed"

    def check_every_setting_that_acts_has_a_key_of_its_own(self) -> None:
        base = self._run()
        for name, value in self._config.extra:
            own = dict(self._config.extra) | {name: 2 * value + 1}
            other = self._run(dataclasses.replace(self._config, extra=tuple(sorted(own.items()))))
            assert other.key != base.key, f"setting {name} is not in the key"

    def check_a_nan_is_reported_and_the_last_state_kept(self) -> None:
        from mpt.upstream.engine import Diverged

        run = self._run()
        run.advance(1)
        run.prompt[0, 0] = math.nan
        try:
            run.advance(1)
        except Diverged:
            pass
        else:
            raise AssertionError("a NaN in the prompt was not noticed")
        assert run.step_count == 1, f"step {run.step_count} was counted although it diverged"

    def check_memory_does_not_grow(self) -> None:
        import torch

        run = self._run()
        run.advance(2)
        gc.collect()
        gc.disable()  # so that a cycle that holds a graph would be seen
        try:
            before = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            run.advance(10)
            after = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        finally:
            gc.enable()
        assert after <= before, f"{after - before} more tensors live after ten steps"

    def check_the_prompt_moves(self) -> None:
        run = self._run()
        start = run.prompt.clone()
        run.advance(1)
        assert float((run.prompt - start).abs().max()) > 0, "a step left the prompt as it was"


# --- toys ---------------------------------------------------------------------------------------


def toy_backbone() -> Backbone:
    """Return a random T5 of one layer with a byte-level tokenizer."""
    from mpt.backbones import load_backbone

    with tempfile.TemporaryDirectory(prefix="mpt-toy-") as folder:
        return load_backbone(str(save_toy_t5(Path(folder))))


def save_toy_t5(
    path: Path, *, layers: int = 1, width: int = 16, seed: int = 0, tied: bool = False
) -> Path:
    """Save a random T5 (untied: v1.1 style) with a byte-level tokenizer, as a checkpoint."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = byte_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,  # like real T5s: rows that no token uses
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": tied,
        "decoder_start_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(T5Config(**settings))
        if not tied:
            head = torch.randn(settings["vocab_size"], width)
            model.lm_head.weight = torch.nn.Parameter(head)
    return save_checkpoint(model, tokenizer, path)


def save_checkpoint(model: Any, tokenizer: Any, path: Path) -> Path:
    """Save a model and its tokenizer quietly; return the path."""
    from mpt.backbones.load import quiet

    with quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {letter: 3 + number for number, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def toy_task(
    name: str = "toy",
    seed: int = 13,
    *,
    labels: Sequence[str] = ("x", "y"),
    metric: str = "ACC",
    shots: int = 4,
    test: int = 6,
) -> FewShotTask:
    """Return a task whose answer is told by the input's first letter; inputs vary in length."""
    generator = np.random.default_rng([seed, *name.encode()])

    def example(row: int) -> Example:
        label = row % len(labels)
        tail = "".join(generator.choice(list("abc "), size=int(generator.integers(1, 9))))
        return Example("pqrstuv"[label] + tail, (labels[label],))

    splits = [
        tuple(example(row) for row in range(rows))
        for rows in (shots * len(labels), shots * len(labels), test)
    ]
    digest = hashlib.sha256(repr((name, seed, splits)).encode()).hexdigest()
    return FewShotTask(
        name=name,
        shots=shots,
        seed=seed,
        metric=metric,
        train=splits[0],
        dev=splits[1],
        test=splits[2],
        digest=digest,
    )
