"""What tells one model from another, and how it is found without loading the model."""
