"""A burst of Docker events: losses, delay, and the time until the health events are published."""
