"""A contest of upstream methods against the best of multitask learning, at one matched budget.

Settings of all contestants are chosen on validation tasks, written down (frozen), and confirmed on
target tasks with upstream seeds that chose nothing.
"""
