"""The embedded backbones: small weights, their recipes and their evidence."""
