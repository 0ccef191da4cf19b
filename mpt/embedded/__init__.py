"""The generated gym."""
