"""The harness compared with testcontainers-python, and with the bare calls that both have to make."""
