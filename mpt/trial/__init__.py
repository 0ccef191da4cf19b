"""One trial: upstream learning, runs at its rungs, their score. No Ray in it."""
