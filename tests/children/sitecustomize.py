"""Python reads this at the start of every process that a test starts (see `children`).

Importing what a search needs makes half a million objects that stay. To look for garbage among
them after every 700 new ones is a seventh of the start of a process.
"""

import gc

gc.set_threshold(50_000)
