-- The intents of each type that left within its present minute; above a limit they are counted instead of sent, and
-- `example` is the first of those. Written by the relay whose turn it is, and by nobody else.
CREATE TABLE intent_windows (
    notification_type text        PRIMARY KEY,
    began_at          timestamptz NOT NULL,
    sent              bigint      NOT NULL,
    left_out          bigint      NOT NULL DEFAULT 0,
    example           json
);
