"""A stdlib unittest harness: real PostgreSQL, Redis, Docker network, game engine and Runtime Manager.

Importing this package is quick and needs no Docker: the Docker SDK, psycopg and redis are imported
by the functions that talk to them. `daemon` always means the Docker daemon, `engine` the game engine.
"""
