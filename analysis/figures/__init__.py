"""Figures: data from cells (`charts`), what draws them (`drawing`), and which there are."""

from .catalogue import all_figures
from .figure import Figure

__all__ = ["Figure", "all_figures"]
