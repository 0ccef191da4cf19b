"""Frozen language models behind one interface."""

from mpt.backbones.base import Backbone, Batch, Row, RowTable
from mpt.backbones.load import load_backbone

__all__ = ["Backbone", "Batch", "Row", "RowTable", "load_backbone"]
