"""Few-shot tasks: files, catalogue, episodes, the builder and the embedded gym."""
