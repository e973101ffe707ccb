-- Who requested the end of a container, and whether a crash used up the budget of restarts; why a game is restarted.
ALTER TABLE last_exits
    ADD COLUMN requested_by   text    NOT NULL DEFAULT 'unknown',
    ADD COLUMN budget_used_up boolean NOT NULL DEFAULT false;
ALTER TABLE crash_restarts ADD COLUMN cause text NOT NULL DEFAULT 'crash';
