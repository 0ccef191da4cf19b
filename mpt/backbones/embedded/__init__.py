"""The embedded T5: small weights, their recipe and their evidence."""
