"""Runtime Manager: runs each game of the platform in a container of its own.

It takes jobs from Redis Streams and calls from an internal REST API, keeps its records in PostgreSQL and is
the only service that talks to Docker. `rtmanager.bootstrap.app.Runtime` is the whole service as one object,
`python -m rtmanager` the same as a process. `docs/architecture.md` follows one job through it.
"""

__version__ = "0.1.0"
