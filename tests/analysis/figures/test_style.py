"""One style: files that repeat to the byte, text that stays text, nothing global changed."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.figures.charts.data import Estimate, TaskChart
from analysis.figures.drawing import style
from analysis.figures.drawing.tasks import draw_tasks


def _chart() -> TaskChart:
    series = {"maml": (Estimate(value=1.0, low=0.0, high=2.0), Estimate(value=2.0))}
    return TaskChart(title="A title", axis="score, %", tasks=("one", "<b>&two"), series=series)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    first = style.save(draw_tasks(_chart()), tmp_path / "a", "figure")
    again = style.save(draw_tasks(_chart()), tmp_path / "b", "figure")
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_svg_text_is_text_and_is_escaped_and_carries_no_date(tmp_path: Path) -> None:
    svg, _ = style.save(draw_tasks(_chart()), tmp_path, "figure")
    source = svg.read_text()
    for text in ("A title", "score, %", "&lt;b&gt;&amp;two"):
        assert re.search(rf"<text [^>]*>{re.escape(text)}</text>", source)
    assert "<b>" not in source
    assert "<dc:date>" not in source


def test_a_figure_is_eight_centimetres_wide_and_its_letters_have_five_points_at_least(
    tmp_path: Path,
) -> None:
    svg, png = style.save(draw_tasks(_chart()), tmp_path, "figure")
    width = float(re.search(r'width="([\d.]+)pt"', svg.read_text()).group(1))  # type: ignore[union-attr]
    assert width / 72 * 2.54 == pytest.approx(8.0, abs=0.01)
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg.read_text())]
    assert min(sizes) >= 5.0
    assert int.from_bytes(png.read_bytes()[16:20], "big") == pytest.approx(
        8.0 / 2.54 * style.DPI, abs=1
    )


def test_matplotlib_keeps_its_own_settings(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    style.save(draw_tasks(_chart()), tmp_path, "figure")
    assert dict(matplotlib.rcParams) == before


def _seen(color: str, matrix: list[list[float]]) -> np.ndarray:
    """The colour as a dichromat sees it (linear RGB; Viénot, Brettel and Mollon 1999)."""
    linear = np.array(to_rgb(color)) ** 2.2
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],  # protanopia
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],  # deuteranopia
    ],
)
def test_methods_differ_in_colour_to_dichromats_and_in_marker_to_everybody(
    matrix: list[list[float]],
) -> None:
    looks = list(style.METHODS.values())
    assert len({look.marker for look in looks}) == len(looks)
    seen = [_seen(look.color, matrix) for look in looks]
    distances = [float(np.linalg.norm(a - b)) for n, a in enumerate(seen) for b in seen[n + 1 :]]
    assert min(distances) > 0.2  # of √3 between black and white


def test_methods_stand_in_the_papers_order_and_others_behind() -> None:
    found = style.by_method(["zebra", "prompt_tuning", "reptile", "maml"])
    assert found == ["maml", "reptile", "prompt_tuning", "zebra"]


def test_ink_is_readable_on_every_shade() -> None:
    for share in np.linspace(-0.5, 1.5, 21):
        paper, ink = (np.array(to_rgb(color)) for color in style.shade(float(share)))
        assert abs(float((paper - ink) @ [0.299, 0.587, 0.114])) > 0.4
