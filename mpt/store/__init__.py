"""The database of results, and the files beside it."""
