"""The errors that a person can cure: each is one line that says name, value, rule and cure."""

from __future__ import annotations


class MptError(Exception):
    """An error with a cure in its text; a command prints one line and exits with its code."""

    exit_code = 1


class UsageError(MptError, ValueError):
    """A flag or setting is unknown, out of range, or names a path that is absent or unwritable."""

    exit_code = 2


class DataError(MptError, ValueError):
    """What a path holds is wrong: file and line, the value, the rule."""

    exit_code = 3


class Interrupted(MptError):
    """The run was stopped from outside; the same command again resumes it."""

    exit_code = 75


class StorageError(MptError):
    """The storage of results is full, gone or closed; cured, the same command again resumes."""

    exit_code = 75
