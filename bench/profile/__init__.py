"""A timeline of one start job: what the manager does from the entry to the result."""
