"""Parts of `scale.py`: the results it is measured on, a search's writer, the database alone."""
