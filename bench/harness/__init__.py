"""The harness against testcontainers-python, and against the bare Docker calls that both make."""
