"""The database of results, and the files beside it.

`mpt.store.database` opens and asks it, `mpt.store.records` are the values in it, and
`mpt.store.artifacts` are the files that it names.
"""
