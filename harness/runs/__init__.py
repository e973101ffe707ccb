"""A run of tests: whether it takes place, what belongs to it, and its clean-up."""
