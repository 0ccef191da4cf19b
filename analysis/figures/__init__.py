"""Figures: what draws plain data (`analysis.figures.data`), and what reads records."""
