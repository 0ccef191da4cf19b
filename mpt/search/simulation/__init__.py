"""A search on recorded results, in simulated time."""
