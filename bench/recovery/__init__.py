"""How soon all that was due is done again after an instance was killed, or a dependency was away."""
