"""Ray Tune: trainable, session, preflight, metrics."""
