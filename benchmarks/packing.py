"""Throughput of packed prompt tuning: R runs side by side against one after the other.

    python benchmarks/packing.py [--backbone t5-small-random] [--device cuda --dtype bfloat16]
                                 [--input-length L] [--runs 1 2 4 8 16 32] [--compile]

"plain" is the usual loop: one run, the Hugging Face model with its own loss, Hugging Face's
Adafactor. All cells are measured in turns, so that a change of the machine's speed hits all alike;
numbers are medians over the rounds with the extremes beside them, and ratios are formed round by
round. Rates are of training steps alone, on a CPU in CPU seconds. *Useful* is the share of tokens
that are not padding. FLOPs are model FLOPs (`flops.py` has the formula), padding included, as a
share of what a large matrix product of the same dtype reaches here. Memory is what a step needs
beyond the loaded model, on a CPU of a fresh process for every R.

The random backbones cost what real ones of their shape do: nothing is downloaded. It was run on a
CPU in float32, bfloat16 and with --compile; the CUDA path (synchronisation, memory, profile) has
not been run yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import Spread, in_a_process, machine, matrix_rate, spread
from packing_cells import (
    Count,
    Setting,
    compiled,
    counted,
    memory,
    packed_rate,
    plain_rate,
    shares,
)
from random_models import SHAPES

from mpt.backbones import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One line of the table."""

    runs: int | None
    """None for the plain loop."""
    rate: Spread
    """Run-steps a second."""
    ratio: Spread
    """Rate over the plain loop's in the same round."""
    tokens: float | None = None
    """Useful tokens a second."""
    useful: float | None = None
    flops: float | None = None
    """FLOPs of a run-step."""
    efficiency: float | None = None
    """FLOP/s as a share of the matrix rate in the same round."""
    bytes: int | str | None = None
    """Memory of a step; a text where it could not be measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    setting = _setting(flags)
    # First of all, while this process is still fit to be forked from.
    bytes_of = {
        runs: in_a_process(memory, setting, runs)
        for runs in flags.runs
        if flags.memory and setting.device == "cpu"
    }
    backbone = setting.open()
    print(f"{_sentence(setting)}\n{machine(setting.device)}", flush=True)
    counts = {runs: counted(backbone, setting, runs) for runs in flags.runs}
    rates, matrix = measured(backbone, setting, flags.runs, flags.rounds)
    if flags.memory and setting.device != "cpu":
        bytes_of = {runs: memory(setting, runs, backbone) for runs in flags.runs}
    cells = cells_of(setting, rates, counts, matrix, bytes_of)
    print(f"matrix products {spread([rate / 1e9 for rate in matrix])} GFLOP/s\n\n{_table(cells)}")
    profiles = {runs: shares(backbone, setting, runs) for runs in flags.profile or ()}
    print(_shares_table(profiles), end="")
    gains = _compile_gains(backbone, setting, flags) if flags.compile else []
    print(machine(setting.device))
    if flags.json:
        body = {
            "setting": dataclasses.asdict(setting),
            "matrix_rate": dataclasses.asdict(spread(matrix)),
            "cells": [dataclasses.asdict(cell) for cell in cells],
            "shares": profiles,
            "compile": gains,
        }
        flags.json.write_text(json.dumps(body, indent=1) + "\n")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    known = ", ".join(SHAPES)
    add("--backbone", default="embedded", help=f'{known}, "embedded", a Hub id or a path')
    add("--device", default="cpu", help='"cpu" or "cuda"')
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--runs", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="R, the pack's runs")
    add("--batch", type=int, default=8, help="rows of a run's step")
    add("--input-length", type=int, default=64, help="most input tokens")
    add("--shortest", type=float, default=0.5, help="shortest input as a share of the longest")
    add("--target-length", type=int, default=8, help="target tokens")
    add("--prompt", type=int, default=20, help="prompt tokens (paper: 100)")
    add("--run-steps", type=int, default=32, help="timed run-steps of a cell in a round")
    add("--rounds", type=int, default=5, help="rounds over all cells")
    add(
        "--pass-tokens",
        type=int,
        help="most padded tokens of a forward pass, if not the library's limit",
    )
    add("--profile", type=int, nargs="*", help="packs to profile; default: smallest and largest")
    add("--no-memory", dest="memory", action="store_false", help="leave memory out")
    add(
        "--compile",
        nargs="?",
        const="default",
        choices=["default", "reduce-overhead", "max-autotune"],
        help="compare with torch.compile in this mode",
    )
    add("--json", type=Path, help="write the numbers here too")
    flags = parser.parse_args(arguments)
    small = [
        name for name in ("batch", "prompt", "run_steps", "rounds") if getattr(flags, name) < 1
    ]
    if small or min(flags.runs) < 1:
        parser.error(f"{', '.join(small) or 'runs'}: must be whole numbers ≥ 1")
    if not 0 < flags.shortest <= 1:
        parser.error(f"--shortest is {flags.shortest}, but must be in (0, 1]")
    if flags.profile is None:
        flags.profile = sorted({min(flags.runs), max(flags.runs)})
    return flags


def _setting(flags: argparse.Namespace) -> Setting:
    names = [field.name for field in dataclasses.fields(Setting)]
    return Setting(**{name: getattr(flags, name) for name in names})


def _sentence(setting: Setting) -> str:
    low = int(setting.shortest * setting.input_length)
    return (
        f"{setting.backbone} in {setting.dtype}: batches of {setting.batch}, prompt "
        f"{setting.prompt}, inputs {low} to {setting.input_length}, targets "
        f"{setting.target_length}"
    )


def measured(
    backbone: Backbone, setting: Setting, runs: Sequence[int], rounds: int
) -> tuple[dict[int | None, list[float]], list[float]]:
    """Return every round's run-steps a second of each cell (None: plain), and matrix rate."""
    plain_rate(backbone, setting)  # its first use pays for what the others share
    rates: dict[int | None, list[float]] = {None: [], **{count: [] for count in runs}}
    matrix = []
    for _ in range(rounds):
        matrix.append(matrix_rate(setting.device, getattr(torch, setting.dtype)))
        rates[None].append(plain_rate(backbone, setting))
        for count in runs:
            rates[count].append(packed_rate(backbone, setting, count))
    return rates, matrix


def cells_of(
    setting: Setting,
    rates: Mapping[int | None, Sequence[float]],
    counts: Mapping[int, Count],
    matrix: Sequence[float],
    bytes_of: Mapping[int, int | str],
) -> list[Cell]:
    """Return the lines of the table from what was measured of every pack (None: plain)."""
    cells = []
    for runs, own in rates.items():
        ratio = spread([a / b for a, b in zip(own, rates[None], strict=True)])
        if runs is None:
            cells.append(Cell(runs=None, rate=spread(own), ratio=ratio))
            continue
        rate, count = spread(own), counts[runs]
        run_steps = runs * (setting.steps(runs) + 1)
        flops = count.flops / run_steps
        cells.append(
            Cell(
                runs=runs,
                rate=rate,
                ratio=ratio,
                tokens=rate.median * count.useful / run_steps,
                useful=count.useful / count.padded,
                flops=flops,
                efficiency=spread(
                    [flops * a / b for a, b in zip(own, matrix, strict=True)]
                ).median,
                bytes=bytes_of.get(runs),
            )
        )
    return cells


def _table(cells: Sequence[Cell]) -> str:
    """Return the cells as lines."""
    lines = [
        f"{'runs':>5}  {'run-steps/s':>20}  {'× plain':>18}  {'tokens/s':>9}  {'useful':>6}"
        f"  {'GFLOP':>7}  {'of matrix':>9}  {'memory':>9}"
    ]
    for cell in cells:
        head = f"{cell.runs or 'plain':>5}  {cell.rate!s:>20}  {cell.ratio!s:>18}"
        if cell.runs is None:
            lines.append(head)
            continue
        assert cell.flops is not None
        lines.append(
            f"{head}  {cell.tokens:9.0f}  {cell.useful:6.2f}  {cell.flops / 1e9:7.2f}"
            f"  {cell.efficiency:9.1%}  {_megabytes(cell.bytes)}"
        )
    return "\n".join(lines)


def _megabytes(count: int | str | None) -> str:
    return f"{count / 2**20:6.0f} MB" if isinstance(count, int) else str(count or "")


def _shares_table(profiles: Mapping[int, Mapping[str, float]]) -> str:
    """Return where the time goes, a line a pack."""
    lines = ["", "share of the time (torch.profiler, with its own overhead)"] if profiles else []
    for number, (runs, parts) in enumerate(profiles.items()):
        if number == 0:
            lines.append(f"{'runs':>5}  " + "  ".join(f"{name:>16}" for name in parts))
        lines.append(f"{runs:>5}  " + "  ".join(f"{share:16.1%}" for share in parts.values()))
    return "\n".join([*lines, "", ""]) if lines else ""


def _compile_gains(
    backbone: Backbone, setting: Setting, flags: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure and print every pack with and without torch.compile, in turns."""
    print(f"torch.compile ({flags.compile}): training passes only, shapes dynamic")
    gains = []
    for gain in compile_gains(backbone, setting, flags.compile, flags.runs, flags.rounds):
        after = gain["pays_after"]
        pays = "never pays" if after is None else f"pays after {after:.0f} run-steps"
        print(
            f"{gain['runs']:>5}  gain {Spread(**gain['gain'])}, compiling took "
            f"{gain['compile_seconds']:.1f} s: {pays}",
            flush=True,
        )
        gains.append(gain)
    return gains


def compile_gains(
    backbone: Backbone, setting: Setting, mode: str, runs: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield for every pack what compiling gains and takes, measured in turns without it."""
    with compiled(backbone, mode) as turn:
        for count in runs:
            turn(True)
            started = time.perf_counter()
            packed_rate(backbone, setting, count)
            first = time.perf_counter() - started
            rates: dict[bool, list[float]] = {True: [], False: []}
            again = []
            for on in [True, False] * rounds:
                turn(on)
                started = time.perf_counter()
                rates[on].append(packed_rate(backbone, setting, count))
                again += [time.perf_counter() - started] if on else []
            gain = spread([a / b for a, b in zip(rates[True], rates[False], strict=True)])
            seconds = max(0.0, first - min(again))
            saved = 1 / spread(rates[False]).median - 1 / spread(rates[True]).median
            yield {
                "runs": count,
                "gain": dataclasses.asdict(gain),
                "compile_seconds": seconds,
                "pays_after": seconds / saved if saved > 0 else None,
            }


if __name__ == "__main__":
    main()
