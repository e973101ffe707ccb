"""Runtime Manager: runs each game of the platform in a container of its own.

It receives jobs from Redis Streams and calls from an internal REST API, and keeps its records in PostgreSQL. It is the
only service that uses Docker. `rtmanager.bootstrap.app.Runtime` is the whole manager as one object, `python -m
rtmanager` the same as a process. `docs/architecture.md` follows one job through it.
"""

__version__ = "0.2.0"
