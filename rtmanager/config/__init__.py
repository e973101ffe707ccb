"""The environment, parsed into one frozen value."""
