"""PostgreSQL: records, the queue of operations, the outbox. The SQL is in `sql/` and `migrations/`."""
