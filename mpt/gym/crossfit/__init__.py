"""The builder of the 160 published tasks."""
