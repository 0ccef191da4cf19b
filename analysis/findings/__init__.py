"""What the records say: one sentence a question, with its numbers and where they stand."""
