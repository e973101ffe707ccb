-- How many starts of a game after an outage have failed, before the one that is planned.
ALTER TABLE crash_restarts ADD COLUMN tries integer NOT NULL DEFAULT 0;
