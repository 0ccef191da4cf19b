"""How many trials can share a GPU, from what one of them was measured to need.

Ray counts shares of a GPU but does not keep a trial within its share of the memory. So the share
has to come from a measurement: the probe of a search notes the most bytes that it held.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpt.errors import UsageError

GIB = 2**30

CONTEXT_BYTES = GIB
"""What a process holds on a GPU besides its tensors: the CUDA context and loaded kernels.

An allowance, not a measurement of ours: 0.3 to 0.8 GiB are reported on current GPUs.
"""

MARGIN = 0.1
"""Part of the GPU left free: a trial's longest batch may be longer than the probe's."""

MOST_SHARING = 16
"""Trials on one GPU at most: beyond, each takes its CPU and host memory for little gain."""

RAY_UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


def suggest_gpu_share(memory_needed_bytes: int, gpu_bytes: int) -> float:
    """Return the share of a GPU, 1/n rounded down to Ray's unit, with which n trials fit on it.

    n is the largest number with n·(need + context) ≤ (1 − margin)·GPU, at most `MOST_SHARING`.

    Raises:
        UsageError: not even one trial fits.
    """
    room = (1 - MARGIN) * gpu_bytes
    trials = int(room // (memory_needed_bytes + CONTEXT_BYTES))
    if trials < 1:
        raise UsageError(
            f"a trial needs {memory_needed_bytes / GIB:.1f} GiB and its process "
            f"{CONTEXT_BYTES / GIB:.1f} GiB, but a GPU of {gpu_bytes / GIB:.1f} GiB has "
            f"{room / GIB:.1f} GiB to give; take a larger GPU or a smaller backbone"
        )
    # rounded down: seven shares of 0.1429 would be more than one GPU, and Ray would run six
    return RAY_UNIT // min(trials, MOST_SHARING) / RAY_UNIT


def share_line(need: int | None, gpu_bytes: int | None, asked: float) -> str | None:
    """Return what to say of the share of a GPU that was asked for; None if nothing.

    Args:
        need: most bytes of tensors a trial held in the probe; None: not measured.
        gpu_bytes: bytes of the GPU; None: not measured.
        asked: ``--gpus-per-trial``.

    Raises:
        UsageError: a trial does not fit on the GPU.
    """
    if need is None or gpu_bytes is None:
        return None
    share = suggest_gpu_share(need, gpu_bytes)
    held = f"a trial held {need / GIB:.1f} of {gpu_bytes / GIB:.1f} GiB in the probe"
    if asked < share:
        return (
            f"{held}: with --gpus-per-trial {asked:g} trials that share a GPU may run out of its "
            f"memory; {share:g} is safe"
        )
    if share < min(asked, 1.0):
        return f"{held}: --gpus-per-trial {share:g} lets {int(1 / share)} trials share a GPU"
    return None


def trials_on_gpus(gpus: float, share: float) -> int:
    """Return how many trials run at once on some GPUs.

    A fraction shares one GPU, and never two; a share above 1 takes several.
    """
    return int(gpus // share) if share > 1 else int(gpus) * int(1 / share + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU that a cluster may have."""

    name: str
    gib: float
    """Memory that CUDA reports, in GiB."""
    instance: str
    """A machine with one (or, where it says so, eight) of them on AWS."""


GPUS = (
    Gpu(name="A10G", gib=22.0, instance="g5.2xlarge"),
    Gpu(name="L40S", gib=44.5, instance="g6e.2xlarge"),
    Gpu(name="H100", gib=79.1, instance="p5.4xlarge"),
    Gpu(name="H200", gib=139.8, instance="p5en.48xlarge (8)"),
)
"""From the smallest to the largest memory."""


def smallest(peak: int) -> Gpu | None:
    """Return the smallest GPU that holds a trial of this many bytes; None if none does.

    Its process stands beside the trial, and a tenth is left free.
    """
    need = peak + CONTEXT_BYTES
    return next((gpu for gpu in GPUS if need <= (1 - MARGIN) * gpu.gib * GIB), None)
