"""The files that docs/cluster.md shows: they parse, and their versions are the pinned ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from pages import DOCS, ROOT, Block, blocks

FILES = {block.title: block for block in blocks(DOCS / "cluster.md") if block.title}
PINNED = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def text_of(name: str) -> str:
    block: Block = FILES[name]
    return block.text


def test_the_ray_cluster_has_a_token_no_trials_on_its_head_and_the_pinned_ray() -> None:
    cluster: dict[str, Any] = yaml.safe_load(text_of("raycluster.yaml"))
    spec = cluster["spec"]
    assert f'"ray[default,tune]=={spec["rayVersion"]}"' in PINNED
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = spec["workerGroupSpecs"]
    groups = (spec["headGroupSpec"], workers)
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert containers[0]["image"] == containers[1]["image"]
    assert containers[1]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_image_has_the_pinned_ray_and_torch() -> None:
    (ray,) = re.findall(r"rayproject/ray:([\d.]+)-", text_of("Dockerfile"))
    (torch,) = re.findall(r"torch==([\d.]+)", text_of("Dockerfile"))
    assert f'"ray[default,tune]=={ray}"' in PINNED
    assert f'"torch=={torch}"' in PINNED


def test_the_shell_reads_the_batch_script(tmp_path: Path) -> None:
    script = tmp_path / "mpt.sbatch"
    script.write_text(text_of("mpt.sbatch"), encoding="utf-8")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.read_text().startswith("#!/bin/bash\n#SBATCH ")
