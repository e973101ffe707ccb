"""A burst of Docker's events: whether all of them are heard, how late, and how soon all that follows is told."""
