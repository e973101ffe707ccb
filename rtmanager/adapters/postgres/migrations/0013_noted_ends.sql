-- The container that an operation began to stop, noted before the request: after a crash, the next try knows that its
-- end was requested. Null before, and for operations of an earlier release.
ALTER TABLE operations ADD COLUMN ends_container text;
