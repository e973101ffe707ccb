-- One row: the daemon whose containers the records are about. Empty until a first start, or `accept-daemon`, fills it.
CREATE TABLE daemon (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    daemon_id   text        NOT NULL,
    name        text        NOT NULL,
    network     text        NOT NULL,
    network_id  text        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
