"""The sides of the comparison with peers: what their users would write, and ours."""
