"""Upstream methods: an outer gradient each."""
