"""Best settings over partitions, backbones and methods."""
