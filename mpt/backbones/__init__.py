"""Frozen language models behind one interface."""
