"""Best settings over partitions, backbones and methods; the whole study; similarity.

`mpt.replay(...)` is the function of the public interface: this package can be called, so that its
import does not hide the function of the same name.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call `mpt.api.running.replay`."""
        return importlib.import_module("mpt.api.running").replay(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
