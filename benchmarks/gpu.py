"""Everything worth knowing of one GPU, in eight minutes, as one JSON document.

    python benchmarks/gpu.py --json found.json [--backbone t5-large-random] [--only packing tf32]
    python benchmarks/gpu.py --toy            the same on a CPU, at sizes of seconds

    matrix      what a large matrix product reaches: float32, TF32, bfloat16
    packing     R = 1 … 32 runs side by side against PEFT's loop, inputs of 64, 128 and 256 tokens,
                in bfloat16: run-steps a second, share of the matrix rate, memory
    probe       bytes of a pass as the memory probe and the count on shapes foretell them, and as
                they are; and whether the pass that the probe allows really runs
    meta_step   every second-order engine: time, memory, difference from the unrolled gradient
    shared      outer steps of 2, 4 and 8 episodes that share passes, against one after the other
    peers       downstream runs as users of PEFT write them, and ours, in bfloat16: seconds a run,
                ratios, how many scores are equal (`peers_real.py`)
    tf32        fine-tuning in float32 with and without TF32: time of a step, difference of losses
    search      one smoke search by Ray Tune on the embedded model, two trials to a GPU
    compile     torch.compile of the training passes: gain, and after how many steps it pays

Sections are independent. What one of them raises is written down in its place, and no section is
begun once --seconds are over; the document is written anew after each, so that a run that is cut
off leaves what it had. Models have random weights of real shapes: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import meta_step
import packing
import packing_cells
import peers_real
import torch
from measuring import machine, matrix_rate, now, peak, reset_peak
from random_models import open_backbone
from sides import shared_passes

from mpt.backbones.memory import estimate_config
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.limits import measure_limits
from mpt.downstream.out_of_memory import attempt
from mpt.downstream.probe import Probe
from mpt.downstream.prompt_tuning import TuningRun
from mpt.provenance import provenance

JOB = Path(__file__).resolve().parents[1] / "tune_jobs" / "maml_rr.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how large."""

    backbone: str
    device: str
    lengths: tuple[int, ...]
    """Most input tokens of a pack's rows."""
    runs: tuple[int, ...]
    """R."""
    prompt: int
    batch: int
    run_steps: int
    rounds: int
    probed: tuple[int, ...]
    """Rows of the passes whose memory is compared with what was foretold."""
    meta_batch: int
    shared_items: tuple[int, ...]
    """Episodes of the outer steps that share passes."""
    peers: str
    """Flags of `peers_real.py`: what the sides do."""
    tuned_steps: int
    compiled: tuple[int, ...]
    """R of the packs that are compiled."""

    def setting(self, length: int) -> packing_cells.Setting:
        """Return the packs' setting at a length."""
        return packing_cells.Setting(
            backbone=self.backbone,
            device=self.device,
            dtype="bfloat16",
            input_length=length,
            shortest=0.5,
            target_length=8,
            prompt=self.prompt,
            batch=self.batch,
            run_steps=self.run_steps,
            pass_tokens=None,
        )


FULL = Plan(
    backbone="t5-large-random",
    device="cuda",
    lengths=(64, 128, 256),
    runs=(1, 2, 4, 8, 16, 32),
    prompt=100,
    batch=8,
    run_steps=32,
    rounds=3,
    probed=(8, 32, 128),
    meta_batch=4,
    shared_items=(2, 4, 8),
    peers="--dtype bfloat16 --tasks 2 --steps 16 --eval-every 8 --dev-rows 16 --test-rows 48",
    tuned_steps=8,
    compiled=(1, 8),
)
TOY = Plan(
    backbone="embedded",
    device="cpu",
    lengths=(16,),
    runs=(1, 3),
    prompt=4,
    batch=2,
    run_steps=3,
    rounds=1,
    probed=(4,),
    meta_batch=1,
    shared_items=(2,),
    peers="--tasks 1 --rounds 1 --quick",
    tuned_steps=3,
    compiled=(1,),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure section by section; print and write the document."""
    flags = _flags(arguments)
    plan = TOY if flags.toy else FULL
    if flags.backbone:
        plan = dataclasses.replace(plan, backbone=flags.backbone)
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is there; --toy runs the sections on a CPU")
    document = {**about(plan), "plan": dataclasses.asdict(plan), "sections": {}}
    started = time.perf_counter()
    for name in flags.only or SECTIONS:
        seconds_left = flags.seconds - (time.perf_counter() - started)
        document["sections"][name] = outcome = section(SECTIONS[name], plan, seconds_left)
        print(f"{name:9} {outcome['seconds']:6.1f} s  {summary(outcome)}", flush=True)
        if flags.json:
            flags.json.write_text(json.dumps(document, indent=1) + "\n")
    if any("error" in outcome for outcome in document["sections"].values()):
        sys.exit(1)


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--toy", action="store_true", help="sizes of seconds, on a CPU")
    add("--backbone", help="another shape than t5-large-random")
    add("--only", nargs="+", choices=list(SECTIONS), help="sections; default: all, in order")
    add("--seconds", type=float, default=420, help="after these no section is begun")
    add("--json", type=Path, help="write the document here")
    return parser.parse_args(arguments)


def about(plan: Plan) -> dict[str, Any]:
    """Return what the numbers depend on besides the plan."""
    cuda = plan.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
        "cuda": torch.version.cuda,
        "load": machine(plan.device),
        **provenance(),
    }


def section(work: Callable[[Plan], Any], plan: Plan, seconds_left: float) -> dict[str, Any]:
    """Do a section unless the time is over; return what it found, or what it raised."""
    if seconds_left <= 0:
        return {"seconds": 0.0, "skipped": "the time was over"}
    started = time.perf_counter()
    try:
        outcome = {"found": work(plan)}
    except Exception as error:  # one section that cannot run must not end the others
        outcome = {"error": f"{type(error).__name__}: {error}"[:500]}
    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    return {"seconds": time.perf_counter() - started, **outcome}


def summary(outcome: Mapping[str, Any]) -> str:
    """Return one line on a section."""
    if "found" not in outcome:
        return str(outcome.get("error") or outcome["skipped"])
    text = json.dumps(outcome["found"])
    return text if len(text) < 160 else f"{text[:157]}…"


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let float32 products round their factors to TF32, or not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matrix_section(plan: Plan) -> dict[str, float]:
    """Return the FLOP/s of a large matrix product in each number format."""
    rates = {"bfloat16": matrix_rate(plan.device, torch.bfloat16)}
    for name, on in (("float32", False), ("tf32", True)):
        with tf32(on):
            rates[name] = matrix_rate(plan.device, torch.float32)
    return rates


def packing_section(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Return the cells of `packing.py` for every length."""
    by_length = {}
    backbone = plan.setting(plan.lengths[0]).open()
    for length in plan.lengths:
        setting = plan.setting(length)
        counts = {runs: packing_cells.counted(backbone, setting, runs) for runs in plan.runs}
        rates, matrix = packing.measured(backbone, setting, plan.runs, plan.rounds)
        bytes_of = {runs: packing_cells.memory(setting, runs, backbone) for runs in plan.runs}
        cells = packing.cells_of(setting, rates, counts, matrix, bytes_of)
        by_length[str(length)] = [dataclasses.asdict(cell) for cell in cells]
    return by_length


def probe_section(plan: Plan) -> dict[str, Any]:
    """Return what the probe and the count on shapes foretell, beside the truth."""
    setting = plan.setting(plan.lengths[-1])
    backbone = setting.open()
    ids = backbone.frequent_ids(50)
    row = ([ids[n % len(ids)] for n in range(setting.input_length)], ids[: setting.target_length])
    probe = Probe(backbone, row, plan.prompt)
    probe.run(1)
    one, two = probe.bytes_of(1), probe.bytes_of(2)
    passes = []
    for rows in plan.probed:
        before = reset_peak(plan.device)
        ran = attempt(probe.run, rows) is not None
        memory = estimate_config(
            plan.backbone,
            backbone.model.config,
            rows=rows,
            prompt=plan.prompt,
            inputs=setting.input_length,
            targets=setting.target_length,
            dtype=backbone.dtype,
        )
        truth = peak(plan.device) - before if ran else None
        passes.append(
            {
                "rows": rows,
                "truth": truth,
                "probe": one + (rows - 1) * (two - one),
                "shapes": memory.activations,
            }
        )
    limits = measure_limits(backbone, [row], plan.prompt, plan.batch)
    most = limits.tokens // probe.width
    return {
        "passes": passes,
        "limits": limits.to_dict(),
        "largest_pass_ran": attempt(probe.run, max(1, most)) is not None,
    }


def meta_step_section(plan: Plan) -> list[dict[str, Any]]:
    """Return time and memory of every engine in float32, and how far its gradient is off."""
    backbone = open_backbone(plan.backbone, plan.device)
    setting = meta_step.Setting(
        device=plan.device,
        prompt=plan.prompt,
        target_length=8,
        inner_lr=10.0,
        repeats=plan.rounds,
    )
    size = meta_step.Size(plan.meta_batch, plan.lengths[len(plan.lengths) // 2], 1)
    by_engine: dict[str, dict[str, Any] | str] = {}
    for engine in meta_step.ENGINES:
        tried = attempt(meta_step.measured, backbone, setting, size, engine)
        by_engine[engine.name] = "out of memory" if tried is None else tried
    reference = by_engine["unrolled"]
    rows = []
    for engine in meta_step.ENGINES:
        own = by_engine[engine.name]
        if isinstance(own, str):
            rows.append({"engine": engine.name, "error": own})
            continue
        gradient = own.pop("gradient") if own is not reference else own["gradient"]
        row = {"engine": engine.name, "seconds": own["seconds"], "bytes": own["bytes"]}
        if not isinstance(reference, str) and engine.method == "maml":
            row["off"] = meta_step.relative_error(gradient, reference["gradient"])
        rows.append(row)
    return rows


def shared_section(plan: Plan) -> list[dict[str, Any]]:
    """Return what a step takes whose episodes share passes, and one whose episodes take turns."""
    backbone = open_backbone(plan.backbone, plan.device)
    size = meta_step.Size(plan.meta_batch, plan.lengths[len(plan.lengths) // 2], 1)
    rows: list[dict[str, Any]] = []
    for method, items in itertools.product(shared_passes.METHODS, plan.shared_items):
        given = (backbone, method, size, items, plan.prompt, plan.rounds)
        cell = attempt(shared_passes.cell, *given)
        row = {"method": method, "items": items, "error": "out of memory"}
        rows.append(row if cell is None else dataclasses.asdict(cell))
    return rows


def peers_section(plan: Plan) -> dict[str, Any]:
    """Return what a downstream run takes by PEFT and by us, and how far the scores agree."""
    words = ["--backbone", plan.backbone, "--device", plan.device, "--one-process"]
    document = peers_real.compared(peers_real.flags_of([*words, *plan.peers.split()]))
    told = ("tasks", "downstream", "seconds_of_a_run", "ratios", "agreement")
    return {name: document[name] for name in told}


def tf32_section(plan: Plan) -> dict[str, Any]:
    """Return seconds of a fine-tuning step with and without TF32, and their losses."""
    setting = plan.setting(plan.lengths[len(plan.lengths) // 2])
    backbone = open_backbone(plan.backbone, plan.device)
    (run,) = packing_cells.make_runs(backbone, setting, 1)
    run = TuningRun(run.task, 1e-4, no_prompt(backbone))
    config, text = packing_cells.recipe(setting, plan.tuned_steps)
    by_format: dict[str, Any] = {}
    for name, on in (("warm-up", True), ("float32", False), ("tf32", True)):
        ends: list[float] = []

        def note(*_: int, ends: list[float] = ends) -> None:
            ends.append(now(plan.device))

        with tf32(on):
            (result,) = fine_tune(backbone, [run], config, text, 0, note)
        # The last step has the evaluation in it, the first one whatever starts up.
        seconds = statistics.median(b - a for a, b in itertools.pairwise(ends[:-1]))
        by_format[name] = {"seconds": seconds, "loss": result.curve[-1][2]}
    return {
        "float32": by_format["float32"],
        "tf32": by_format["tf32"],
        "ratio": by_format["float32"]["seconds"] / by_format["tf32"]["seconds"],
    }


def search_section(plan: Plan) -> dict[str, float]:
    """Return the seconds of a smoke search as a user starts it."""
    with tempfile.TemporaryDirectory(prefix="gpu-search-") as folder:
        command = [sys.executable, str(JOB), "--smoke", "--results", folder]
        command += ["--gpus-per-trial", "0.5"] if plan.device == "cuda" else []
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(
                f"exit code {done.returncode}: {(done.stdout + done.stderr)[-400:]}"
            )
        return {"seconds": time.perf_counter() - started}


def compile_section(plan: Plan) -> list[dict[str, Any]]:
    """Return what compiling the training passes gains and takes."""
    setting = plan.setting(plan.lengths[0])
    gains = packing.compile_gains(setting.open(), setting, "default", plan.compiled, plan.rounds)
    return list(gains)


SECTIONS: dict[str, Callable[[Plan], Any]] = {
    "matrix": matrix_section,
    "packing": packing_section,
    "probe": probe_section,
    "meta_step": meta_step_section,
    "shared": shared_section,
    "peers": peers_section,
    "tf32": tf32_section,
    "search": search_section,
    "compile": compile_section,
}


if __name__ == "__main__":
    main()
