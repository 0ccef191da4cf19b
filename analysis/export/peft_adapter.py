"""A soft prompt in the format of PEFT: ``adapter_config.json`` and ``adapter_model.safetensors``.

PEFT puts its virtual tokens before the input, on the encoder's side of an encoder-decoder model
(one transformer submodule); so do prompts that were trained with position "prepend".
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.backbones.load import pretrained_source
from mpt.errors import UsageError
from mpt.records import LeafStore, PointStore, Record

from .file import Exported, refuse_existing

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASK_TYPES = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}
"""Kind of model → PEFT's word."""
_WIDTHS = ("d_model", "n_embd", "hidden_size")
"""Names that model configurations have for d."""


@dataclass(frozen=True)
class Origin:
    """What the records around a prompt file say about it."""

    backbone: str | None
    """Name of the language model; None if it is not recorded."""
    position: str
    """Where the prompt stood in training."""


def export_peft(
    prompt_file: Path, out: Path, base_model: str | None = None, kind: str | None = None
) -> Exported:
    """Write a prompt as a PEFT adapter.

    Args:
        prompt_file: a prompt of this program (a rung of a trajectory, or a tuned prompt).
        out: a new directory.
        base_model: id or folder of the language model; None: the one that the records around the
            file name.
        kind: "seq2seq" or "causal"; None reads it off the model's folder or name.

    Raises:
        UsageError: the model is not known or of another width, the prompt does not stand before
            the input, or `out` exists or cannot be written.
        DataError: the file holds no prompt.
    """
    from mpt.prompts import load_prompt

    if not prompt_file.is_file():
        raise UsageError(f"prompt {str(prompt_file)!r} is not a file")
    prompt, metadata = load_prompt(prompt_file)
    recorded = _recorded_model(prompt_file, metadata)
    name = base_model or recorded
    if name is None:
        raise UsageError(f"{prompt_file}: no record names its model; give it with --base-model")
    source = pretrained_source(name)
    model = _configuration(source)
    length, width = prompt.shape
    widths = {model[field] for field in _WIDTHS if field in model}
    if widths and width not in widths:
        raise UsageError(f"{prompt_file}: is {width} wide, but {name} is {widths.pop()}")
    known = str(model.get("model_type", source)).lower()
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": TASK_TYPES[kind or ("causal" if "gpt2" in known else "seq2seq")],
        "base_model_name_or_path": source,
        "prompt_tuning_init": "RANDOM",
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "inference_mode": True,
    }
    _write(out, config, prompt)
    return Exported(path=out, count=length, what="virtual tokens")


def _recorded_model(prompt_file: Path, metadata: dict[str, str]) -> str | None:
    """Return the model that the records name, after a check of where the prompt stood."""
    origin = origin_of(prompt_file, metadata)
    if origin is None:
        return None
    if origin.position != "prepend":
        raise UsageError(
            f"{prompt_file}: was trained with position {origin.position!r}, but PEFT puts a "
            "prompt before the input; train one with position 'prepend'"
        )
    return origin.backbone


def _configuration(source: str) -> dict[str, Any]:
    """Return the configuration of a local model; empty for one of the Hub."""
    path = Path(source) / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(out: Path, config: dict[str, Any], prompt: Tensor) -> None:
    """Write the two files into a new directory; it is there whole or not at all."""
    from safetensors.torch import save_file

    refuse_existing(out)
    temporary = out.with_name(f".{uuid.uuid4().hex}.{out.name}")
    try:
        temporary.mkdir(parents=True)
        save_file({"prompt_embeddings": prompt.contiguous()}, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        temporary.rename(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error}); give another") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def origin_of(prompt_file: Path, metadata: dict[str, str]) -> Origin | None:
    """Return what the results directory around a prompt file says about it; None if nothing."""
    root = next((p for p in prompt_file.resolve().parents if (p / "points").is_dir()), None)
    if root is None:
        return None
    points = PointStore(root, read_only=True).all()
    for point in points:
        if point.get("trajectory") is not None and point["trajectory"] == metadata.get(
            "trajectory"
        ):
            return Origin(point.get("backbone"), point["identity"]["prompt"]["position"])
    leaf = LeafStore(root, read_only=True).get(prompt_file.stem)
    if leaf is None or "prompt" not in leaf["identity"].get("recipe", {}):
        return None
    identity = leaf["identity"]
    name = next(_names(points, identity["backbone"]), None)
    return Origin(name, identity["recipe"]["prompt"]["position"])


def _names(points: list[Record], digest: str) -> Iterator[str]:
    """Yield the names under which the points know a backbone."""
    for point in points:
        if point["identity"].get("backbone") == digest and point.get("backbone"):
            yield point["backbone"]
