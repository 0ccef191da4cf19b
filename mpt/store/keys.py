"""Keys, under the name that the database's modules use."""

from mpt.keys import SCHEMA, canonical, changed, digest, key_of

__all__ = ["SCHEMA", "canonical", "changed", "digest", "key_of"]
