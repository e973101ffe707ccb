"""Thousands of games without containers: their records, a simulated daemon, and engines that answer.

This measures the work of ten thousand games on a small machine. The manager uses real PostgreSQL and real Redis,
Docker's API on a socket, and engines on sockets; only the containers behind the API are simulated.
"""
