"""Figures: what draws plain data (`analysis.figures.data`), and what reads records."""

from analysis.figures.catalogue import Figure, all_figures

__all__ = ["Figure", "all_figures"]
