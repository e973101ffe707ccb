-- Records, log and snapshots are the contract with other services (docs/contract.md, "PostgreSQL").

CREATE TABLE runtime_records (
    game_id              text        PRIMARY KEY,
    status               text        NOT NULL,
    current_container_id text,
    current_image_ref    text,
    engine_endpoint      text        NOT NULL,
    state_path           text        NOT NULL,
    docker_network       text        NOT NULL,
    started_at           timestamptz,
    stopped_at           timestamptz,
    removed_at           timestamptz,
    last_op_at           timestamptz NOT NULL,
    created_at           timestamptz NOT NULL,
    CONSTRAINT runtime_records_status_chk CHECK (status IN ('running', 'stopped', 'removed'))
);
CREATE INDEX runtime_records_status_last_op_idx ON runtime_records (status, last_op_at);

CREATE TABLE operation_log (
    id            bigserial   PRIMARY KEY,
    game_id       text        NOT NULL,
    op_kind       text        NOT NULL,
    op_source     text        NOT NULL,
    source_ref    text        NOT NULL,
    image_ref     text,
    container_id  text,
    outcome       text        NOT NULL,
    error_code    text,
    error_message text,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    CONSTRAINT operation_log_op_kind_chk CHECK (op_kind IN (
        'start', 'stop', 'restart', 'patch', 'cleanup_container', 'reconcile_adopt', 'reconcile_dispose')),
    CONSTRAINT operation_log_op_source_chk CHECK (op_source IN (
        'lobby_stream', 'gm_rest', 'admin_rest', 'auto_ttl', 'auto_reconcile')),
    CONSTRAINT operation_log_outcome_chk CHECK (outcome IN ('success', 'failure'))
);
CREATE INDEX operation_log_game_idx ON operation_log (game_id, id);

CREATE TABLE health_snapshots (
    game_id      text        PRIMARY KEY,
    container_id text        NOT NULL,
    status       text        NOT NULL,
    source       text        NOT NULL,
    details      jsonb       NOT NULL DEFAULT '{}',
    observed_at  timestamptz NOT NULL,
    CONSTRAINT health_snapshots_status_chk CHECK (status IN (
        'healthy', 'probe_failed', 'exited', 'oom', 'inspect_unhealthy', 'container_disappeared')),
    CONSTRAINT health_snapshots_source_chk CHECK (source IN ('docker_event', 'inspect', 'probe'))
);

-- What was asked and is not yet (or was) done. `position` orders the operations of one game: stream entries by
-- their id, of two equal ids the start first; a REST call stands before them (it is only accepted when nothing
-- of its game is waiting). Entry ids are two unsigned 64 bit numbers, which bigint cannot hold.
-- Games have the order of Python, whatever the locale of the database: claims go around in it.
CREATE TABLE operations (
    id              bigint        GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    game_id         text          COLLATE "C" NOT NULL,
    kind            text          NOT NULL,
    source          text          NOT NULL,
    source_ref      text          NOT NULL,
    image_ref       text          NOT NULL DEFAULT '',
    reason          text          NOT NULL DEFAULT '',
    problem_code    text,
    problem_message text,
    stream          text,
    entry_ms        numeric(20)   NOT NULL DEFAULT -1,
    entry_seq       numeric(20)   NOT NULL DEFAULT -1,
    entry_rank      smallint      NOT NULL DEFAULT -1,
    state           text          NOT NULL DEFAULT 'due',
    not_before      timestamptz   NOT NULL DEFAULT now(),
    owner           integer,
    generation      bigint        NOT NULL DEFAULT 0,
    heartbeat_at    timestamptz,
    deferrals       integer       NOT NULL DEFAULT 0,
    deferred_why    text,
    accepted_at     timestamptz   NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    outcome         text,
    error_code      text,
    error_message   text,
    CONSTRAINT operations_state_chk CHECK (state IN ('due', 'running', 'done'))
);
-- An entry that is delivered twice is one operation.
CREATE UNIQUE INDEX operations_entry_idx ON operations (stream, entry_ms, entry_seq) WHERE stream IS NOT NULL;
-- Two operations never work on one game, whatever the code believes.
CREATE UNIQUE INDEX operations_one_running_per_game_idx ON operations (game_id) WHERE state = 'running';
-- Two REST calls for one game: the second is refused.
CREATE UNIQUE INDEX operations_one_call_per_game_idx ON operations (game_id)
    WHERE state <> 'done' AND stream IS NULL;
CREATE INDEX operations_queue_idx ON operations (game_id, entry_ms, entry_seq, entry_rank, id)
    WHERE state <> 'done';
CREATE INDEX operations_due_idx ON operations (id) WHERE state = 'due';

-- Entries that name no game. Beside the stream of the same name, so that an entry delivered twice is one letter.
CREATE TABLE dead_letters (
    stream      text        NOT NULL,
    entry_ms    numeric(20) NOT NULL,
    entry_seq   numeric(20) NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, entry_ms, entry_seq)
);

-- Messages that are due to Redis. `fields` is json and not jsonb: the order of the fields is kept.
CREATE TABLE outbox (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream     text        NOT NULL,
    fields     json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_stream_idx ON outbox (stream, id);
-- Grows with each turn of the relay; Redis refuses a relay that comes with an older number.
CREATE SEQUENCE outbox_turn;

-- One row: tells this database from any other that uses the same Redis.
CREATE TABLE deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id       uuid    NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO deployment DEFAULT VALUES;
