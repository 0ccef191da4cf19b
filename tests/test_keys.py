"""Keys, and settings as one level of names."""

from __future__ import annotations

import pytest

from mpt.keys import flat


@pytest.mark.parametrize(("joint", "name"), [(".", "a.b.c"), (" ", "a b c")])
def test_nested_settings_become_one_level_in_their_order(joint: str, name: str) -> None:
    tree = {"z": [1, 2], "a": {"b": {"c": 3}, "d": None}, "e": {}}
    level = flat(tree, joint)
    assert level == {"z": [1, 2], name: 3, f"a{joint}d": None}
    assert list(level) == ["z", name, f"a{joint}d"]
