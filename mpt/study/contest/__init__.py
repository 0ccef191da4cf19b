"""What a contest against multitask learning is: its definition, frozen settings and budget."""
