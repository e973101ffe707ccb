-- Of the entries of an input stream up to this one, rows may have been deleted. What comes again of them is known, so that
-- it is never done twice.
CREATE TABLE forgotten_entries (
    stream    text        PRIMARY KEY,
    entry_ms  numeric(20) NOT NULL,
    entry_seq numeric(20) NOT NULL
);

-- Images that the manager pulled, by daemon and by the reference as Docker finds it. `unnamed_since`: since when no record
-- and no operation names it.
CREATE TABLE pulled_images (
    daemon        text        NOT NULL,
    image_ref     text        NOT NULL,
    image_id      text        NOT NULL,
    pulled_at     timestamptz NOT NULL DEFAULT now(),
    unnamed_since timestamptz,
    PRIMARY KEY (daemon, image_ref)
);
