"""One start job as a picture: what the manager does, millisecond by millisecond, from the entry to the result."""
