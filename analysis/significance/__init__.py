"""Which cells of a table of scores are different from plain prompt tuning and from MTL."""
