-- Of the entries of an input stream up to this one, rows may have been deleted. What comes again of them is known, so that
-- it is never done twice.
CREATE TABLE forgotten_entries (
    stream    text        PRIMARY KEY,
    entry_ms  numeric(20) NOT NULL,
    entry_seq numeric(20) NOT NULL
);
