-- What ends an operation that is retried: the same temporary answer for too long, or too many tries that ended by a defect.
ALTER TABLE operations
    ADD COLUMN answer       text,
    ADD COLUMN answer_since timestamptz,
    ADD COLUMN defects      integer NOT NULL DEFAULT 0;
