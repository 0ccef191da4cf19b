"""The report of a contest against multitask learning, and what it is computed from."""
