"""Figures that answer to a pointer: Plotly's, drawn by the page from plain data."""
