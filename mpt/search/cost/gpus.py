"""GPUs that a cluster may have: what they hold, how fast they are, where they can be had."""

from __future__ import annotations

from dataclasses import dataclass

from mpt.search.cost.gpu_share import CONTEXT_BYTES, GIB, MARGIN


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU."""

    name: str
    gib: float
    """Memory that CUDA reports, in GiB."""
    bfloat16: float
    """Peak TFLOP/s in bfloat16, dense, as its data sheet gives it."""
    float32: float
    """Peak TFLOP/s in float32, without TF32."""
    instance: str
    """A machine with one (or, where it says so, eight) of them on AWS."""

    def holds(self, peak: int) -> bool:
        """Return whether a trial of this many bytes fits beside its process, a tenth left free."""
        return peak + CONTEXT_BYTES <= (1 - MARGIN) * self.gib * GIB


GPUS = (
    Gpu(name="A10G", gib=22.0, bfloat16=70, float32=31, instance="g5.2xlarge"),
    Gpu(name="L40S", gib=44.5, bfloat16=362, float32=91, instance="g6e.2xlarge"),
    Gpu(name="H100", gib=79.1, bfloat16=989, float32=67, instance="p5.4xlarge"),
    Gpu(name="H200", gib=139.8, bfloat16=989, float32=67, instance="p5en.48xlarge (8)"),
)
"""From the smallest to the largest memory."""


def smallest(peak: int) -> Gpu | None:
    """Return the smallest GPU that holds a trial of this many bytes; None if none does."""
    return next((gpu for gpu in GPUS if gpu.holds(peak)), None)
