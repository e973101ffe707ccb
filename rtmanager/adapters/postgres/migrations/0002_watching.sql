-- What the watching workers remember beyond a restart, and share between instances.

-- What is wrong with a game's container just now and has been told: it is told once, whichever instance sees it.
-- `mark` tells one occasion from the next.
CREATE TABLE alarms (
    game_id      text        NOT NULL,
    kind         text        NOT NULL,
    container_id text        NOT NULL,
    mark         text        NOT NULL,
    details      jsonb       NOT NULL DEFAULT '{}',
    raised_at    timestamptz NOT NULL,
    PRIMARY KEY (game_id, kind),
    CONSTRAINT alarms_kind_chk CHECK (kind IN ('probe', 'inspect', 'oom'))
);
CREATE INDEX alarms_kind_idx ON alarms (kind);

-- How a game's container last ended by itself; kept when the game runs again.
CREATE TABLE last_exits (
    game_id      text        PRIMARY KEY,
    container_id text        NOT NULL,
    exit_code    integer     NOT NULL,
    oom          boolean     NOT NULL,
    log          text        NOT NULL,
    exited_at    timestamptz NOT NULL
);

-- Which instance does a work that one does for all; until when, unless it says so again.
CREATE TABLE watch_turns (
    work  text        PRIMARY KEY,
    owner integer     NOT NULL,
    until timestamptz NOT NULL
);

-- Crashed games that are to be started again, and when.
CREATE TABLE crash_restarts (
    game_id      text        PRIMARY KEY,
    container_id text        NOT NULL,
    due_at       timestamptz NOT NULL
);
CREATE INDEX crash_restarts_due_idx ON crash_restarts (due_at);

-- The operations of one game in the order of their acceptance: how often it was restarted lately.
CREATE INDEX operations_game_idx ON operations (game_id, accepted_at);
