"""Puts this folder on the path: its helpers serve the tests of all folders below."""
