"""What interactive figures share: numbers on colours can be read, light page or dark."""

from __future__ import annotations

from typing import Any

import pytest
from plotly.colors import sample_colorscale

from analysis.figures.interactive.frame import DIVERGING, INK, PAPER, SCALE, contrast, plot

_STEPS = 64


@pytest.mark.parametrize("scale", [DIVERGING, SCALE])
def test_every_number_of_a_heat_map_stands_out_from_its_colour(scale: Any) -> None:
    shares = [step / _STEPS for step in range(_STEPS + 1)]
    heat = {
        "type": "heatmap",
        "x": [f"c{at}" for at in range(len(shares))],
        "y": ["row", "none"],
        "z": [shares, [None] * len(shares)],
        "text": [[f"{share:.2f}" for share in shares], [""] * len(shares)],
        "zmin": 0,
        "zmax": 1,
        "colorscale": scale,
    }
    _, digits = plot([heat])["data"]
    assert digits["text"] == heat["text"][0]
    assert set(digits["y"]) == {"row"}
    for share, color in zip(shares, digits["textfont"]["color"], strict=True):
        assert color not in (INK, PAPER), "those change with the page; the cells do not"
        (under,) = sample_colorscale(scale, [share], colortype="tuple")
        own = tuple(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
        assert contrast(under, own) >= 4.5, (share, color)


def test_contrast_is_that_of_the_accessibility_guidelines() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    grey = (0x76 / 255,) * 3  # the darkest grey that is said to pass on white
    assert contrast((1, 1, 1), grey) == pytest.approx(4.54, abs=0.01)
