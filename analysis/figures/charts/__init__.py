"""What figures are made of: plain data, computed from cells."""
