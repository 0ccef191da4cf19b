"""What draws plain data, in one style."""
