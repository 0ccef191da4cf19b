"""Learning a starting prompt on source tasks."""
