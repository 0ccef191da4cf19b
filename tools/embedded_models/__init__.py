"""Recipe and evidence of the packaged models."""
