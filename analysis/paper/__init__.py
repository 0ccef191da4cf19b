"""Each published number with ours beside it."""
