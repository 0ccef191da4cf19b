"""Sources chosen by similarity: the measure, pairs of tasks, the pilot."""
