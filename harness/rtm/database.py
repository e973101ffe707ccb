"""The database of the Runtime Manager, as in production (docs/contract.md)."""

from harness.fixtures.postgres import Layout

#: A schema `rtmanager`, owned by the role `rtmanagerservice`, which is no superuser.
RUNTIME_MANAGER = Layout(
    role="rtmanagerservice",
    schema="rtmanager",
    setup="""
        CREATE ROLE rtmanagerservice LOGIN PASSWORD 'rtmanagerservice';
        CREATE SCHEMA rtmanager AUTHORIZATION rtmanagerservice;
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    """,
)

#: The table of the migrations, which tests keep.
MIGRATIONS = "schema_migrations"
