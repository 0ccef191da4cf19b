"""The search: what is missing, who chooses and stops, Ray Tune, what a person sees.

`mpt.search(...)` is the function of the public interface: this package can be called, so that its
import does not hide the function of the same name.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call `mpt.api.running.search`."""
        return importlib.import_module("mpt.api.running").search(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
