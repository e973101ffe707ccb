"""A run of tests: whether it takes place, what is its own, and that it leaves nothing behind."""
