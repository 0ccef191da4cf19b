"""What was computed, as values: cells of a database, their summaries, scores from files."""
