"""PostgreSQL: records, the queue of operations, the outbox. All SQL stands in `sql/` and `migrations/`."""
