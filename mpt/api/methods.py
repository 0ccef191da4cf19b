"""Methods of one's own: a decorator, a plugin file, or an entry point."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.upstream.registry import Method

F = TypeVar("F", bound=Callable[..., Any])

GROUP = "mpt.methods"
"""Entry points of this group are imported when methods are looked up."""


def upstream_method(
    function: F | None = None,
    *,
    name: str | None = None,
    settings: Mapping[str, float] | None = None,
    query: bool = True,
    adapts: bool = True,
    averages: bool = False,
) -> Any:
    """Make a function an upstream method that search, replay, tables and plans know.

    The function gets ``(loss, prompt, episode, config)`` and returns ``(gradient, loss)``: the
    outer gradient of the episode at the prompt [P, d], detached, and the loss to report (a
    number). It must not change the prompt.

    - ``loss.support(prompt, rows)`` and ``loss.query(prompt, rows)`` are the mean losses of train
      and dev rows of the episode's task, as scalars that can be differentiated;
    - ``episode.support`` are the row numbers of the batches of the inner steps, ``episode.query``
      those of the query batch;
    - ``config`` holds `inner_lr`, `inner_steps` and the method's own settings as attributes.

    `mpt.adapt(loss, prompt, episode, config).prompt` is the prompt after the inner steps, and
    `mpt.query_gradient(loss, prompt, episode)` the query gradient and loss at a prompt: together
    they are FoMAML.

    Args:
        function: the function (when the decorator is used without brackets).
        name: the method's name; None: the function's.
        settings: own settings with their defaults; they can be searched like any other.
        query: whether an episode needs a query batch.
        adapts: whether there is an inner loop, so that `inner_lr` and `inner_steps` act.
        averages: whether the gradients of one outer step are averaged, and not summed.

    Raises:
        UsageError: the name is not allowed, or a setting has the name of a built-in one.
    """

    def take(method: F) -> F:
        from mpt.config import UpstreamConfig
        from mpt.upstream.registry import Method, register

        own = dict(settings or {})
        taken = sorted(set(own) & set(UpstreamConfig.__dataclass_fields__))
        if taken:
            raise UsageError(
                f"settings of method {name or method.__name__} are {', '.join(sorted(own))}, but "
                f"{', '.join(taken)} is a setting of every method; give it another name"
            )
        register(
            name or method.__name__,
            Method(
                outer_gradient=method,
                query=query,
                adapts=adapts,
                averages=averages,
                settings=tuple(sorted((key, float(value)) for key, value in own.items())),
                version=source_version(method),
            ),
        )
        return method

    return take if function is None else take(function)


def source_version(function: Callable[..., Any]) -> str:
    """Return a digest of a function's source: a method that is changed has results of its own.

    Functions that it calls are not looked at. Where the source cannot be read, its byte code
    stands for it.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function)).encode()
    except (OSError, TypeError):
        source = function.__code__.co_code + repr(function.__code__.co_consts).encode()
    return hashlib.sha256(source).hexdigest()[:16]


def load_plugin(path: str | Path) -> None:
    """Import a Python file that registers methods; workers get them from the driver.

    Raises:
        UsageError: there is no such file, or importing it fails (the error is named).
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"--plugin is {str(path)!r}, but there is no such file")
    name = f"mpt_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--plugin is {str(path)!r}, but must be a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"--plugin {path}: {type(error).__name__}: {error}; the file must run by itself"
        ) from error


def load_entry_points() -> None:
    """Import the methods of installed packages (entry points of the group "mpt.methods").

    Raises:
        UsageError: importing one fails; package and error are named.
    """
    for entry in metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise UsageError(
                f"entry point {entry.name!r} of group {GROUP} cannot be imported "
                f"({type(error).__name__}: {error}); mend or uninstall its package"
            ) from error


def method_named(name: str) -> Method:
    """Return an upstream method; what is not registered yet is looked for among entry points.

    Raises:
        UsageError: there is none of that name, or an entry point cannot be imported.
    """
    from mpt.upstream.registry import UPSTREAM_METHODS

    if name not in UPSTREAM_METHODS:
        load_entry_points()
    if name not in UPSTREAM_METHODS:
        raise UsageError(
            f"method is {name!r}, but must be one of {', '.join(UPSTREAM_METHODS)}; define it "
            "with @mpt.upstream_method, or import what does"
        )
    return UPSTREAM_METHODS[name]
