"""Tuning and evaluating prompts on one few-shot task."""
