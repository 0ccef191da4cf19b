"""A search seen from outside: what its driver notes of itself, and a view of the record."""
