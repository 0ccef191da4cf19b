"""Scores of predictions and relative gains of methods."""
