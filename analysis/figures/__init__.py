"""Figures: data from cells (`charts`), what draws them (`drawing`), and the plans of all."""

from .catalogue import Figure, all_figures

__all__ = ["Figure", "all_figures"]
