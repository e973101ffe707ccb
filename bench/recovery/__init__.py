"""Time until due work is done after an instance was killed, or after a dependency was unavailable."""
