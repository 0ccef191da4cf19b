"""Everything that the results say, as one static site."""
