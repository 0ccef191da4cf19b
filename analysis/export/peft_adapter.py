"""A soft prompt in the format of PEFT: ``adapter_config.json`` and ``adapter_model.safetensors``.

PEFT puts its virtual tokens before the input, on the encoder's side of an encoder-decoder model
(one transformer submodule); so do prompts that were trained with position "prepend".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.backbones.load import pretrained_source
from mpt.config import PromptConfig
from mpt.errors import UsageError
from mpt.store.database import FILE, open_results

from .file import UNKNOWN, Exported, new_folder

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BEHIND = "append"
"""The position of prompts that stand right behind the input."""
TASK_TYPES = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}
"""Kind of model → PEFT's word."""
_CAUSAL = ("gpt2", "llama", "smollm")
"""Words in the types and ids of decoder-only models."""
_WIDTHS = ("d_model", "n_embd", "hidden_size")
"""Names that model configurations have for d."""


@dataclass(frozen=True, kw_only=True)
class PromptExport:
    """Which prompt is written, and what is said of it."""

    store: str | None = None
    """URL of the database; None: the one in the results directory."""
    study: str | None = None
    """Only points of this study or protocol."""
    point: str | None = None
    """First eight digits or more of a point's key; None: there must be only one."""
    storage: str | None = None
    """Where prompts are; None: the results directory."""
    base_model: str | None = None
    """Id or folder of the language model; None: what the records say."""
    kind: str | None = None
    """"seq2seq" or "causal"; None reads it off the model's folder or name."""
    license: str = UNKNOWN
    """The Hub's id of a licence, such as "mit"."""


def export_peft(
    prompt_file: Path, out: Path, export: PromptExport, results: Path | None = None
) -> Exported:
    """Write the prompt of a file as a PEFT adapter.

    Args:
        prompt_file: a prompt of this program (a rung of a trajectory, or a tuned prompt).
        out: a new directory.
        export: what it is a prompt of.
        results: results directory that knows the prompt; None: the one around its file.

    Raises:
        UsageError: the model is not known or of another width, the prompt does not stand before
            the input, or `out` exists or cannot be written.
        DataError: the file holds no prompt.
    """
    from mpt.prompts import load_prompt

    if not prompt_file.is_file():
        raise UsageError(f"prompt {str(prompt_file)!r} is not a file")
    prompt, _ = load_prompt(prompt_file)
    recorded, position = _origin(prompt_file, results, export.store)
    if position is not None:
        check_position(str(prompt_file), position)
    name = export.base_model or recorded
    if name is None:
        raise UsageError(f"{prompt_file}: no record names its model; give it with --base-model")
    write_adapter(out, adapter_of(str(prompt_file), prompt, name, export.kind), prompt)
    return Exported(path=out, count=len(prompt), what="virtual tokens")


def adapter_of(what: str, prompt: Tensor, name: str, kind: str | None) -> dict[str, Any]:
    """Return the configuration of an adapter.

    Args:
        what: what the prompt is called in messages.
        prompt: φ [P, d].
        name: id or folder of its language model.
        kind: see `PromptExport`.

    Raises:
        UsageError: the model is of another width than the prompt.
    """
    source = pretrained_source(name)
    settings = _configuration(source)
    length, width = prompt.shape
    widths = {settings[field] for field in _WIDTHS if field in settings}
    if widths and width not in widths:
        raise UsageError(f"{what}: is {width} wide, but {name} is {widths.pop()}")
    known = str(settings.get("model_type", source)).lower()
    causal = any(word in known for word in _CAUSAL)
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": TASK_TYPES[kind or ("causal" if causal else "seq2seq")],
        "base_model_name_or_path": source,
        "prompt_tuning_init": "RANDOM",
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "inference_mode": True,
    }


def check_position(what: str, position: str) -> None:
    """Refuse a prompt that PEFT would put elsewhere than it stood in training."""
    if position == "prepend":
        return
    cure = (
        "`mpt export hub` writes a folder that runs it without PEFT"
        if position == BEHIND
        else "train one with position 'prepend'"
    )
    raise UsageError(
        f"{what}: was trained with position {position!r}, but PEFT puts a prompt before the "
        f"input; {cure}"
    )


def _configuration(source: str) -> dict[str, Any]:
    path = Path(source) / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_adapter(
    out: Path, config: Mapping[str, Any], prompt: Tensor, texts: Mapping[str, str] | None = None
) -> None:
    """Write an adapter into a new directory; it is there whole or not at all.

    Raises:
        UsageError: `out` exists or cannot be written.
    """
    from safetensors.torch import save

    new_folder(
        out,
        {
            WEIGHTS: save({"prompt_embeddings": prompt.contiguous()}),
            CONFIG: f"{json.dumps(config, indent=2)}\n".encode(),
            **{name: text.encode() for name, text in (texts or {}).items()},
        },
    )


def _origin(
    prompt_file: Path, results: Path | None, store: str | None
) -> tuple[str | None, str | None]:
    """Return the model of a prompt file and where the prompt stood in training, as recorded.

    A database knows a file by its bytes; None is what no record says.
    """
    root = results or _results_around(prompt_file)
    if root is None and store is None:
        return None, None
    sha = hashlib.sha256(prompt_file.read_bytes()).hexdigest()
    with open_results(root or Path(), store, read_only=True) as database:
        records = [one for one in database.artifacts() if one.digest == sha]
        upstream = {one.owner for one in records if one.kind == "rung"}
        studies = {study.key: study for study in database.studies()}
        for point in database.points() if upstream else ():
            if point.upstream in upstream:
                study = studies[point.study]
                return study.backbone, position_of(study.settings)
        tuned = [one.owner for one in records if one.kind == "prompt"]
        for run in database.runs(tuned).values():
            weights = run.identity.backbone
            names = (s.backbone for s in studies.values() if s.backbone_digest == weights)
            return next(names, None), position_of(run.identity.recipe)
    return None, None


def _results_around(prompt_file: Path) -> Path | None:
    return next((p for p in prompt_file.resolve().parents if (p / FILE).is_file()), None)


def position_of(settings: Mapping[str, Any]) -> str:
    """Return where prompts stand; settings at their default are not recorded."""
    return str(settings.get("prompt", {}).get("position", PromptConfig().position))
