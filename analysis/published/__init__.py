"""The numbers that the paper prints, and what keeps ours from being read beside them."""
