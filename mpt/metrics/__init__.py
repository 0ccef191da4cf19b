"""Scores of predictions and relative gains of methods."""

SCORE_CODE = 1
"""Version of the code that trains and scores downstream runs; raise it whenever it changes what a
number is. Numbers of different versions never meet in one study."""
