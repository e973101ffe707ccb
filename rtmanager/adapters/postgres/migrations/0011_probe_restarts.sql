-- Whether a game whose probes fail is not restarted, since its budget is used up.
ALTER TABLE alarms ADD COLUMN restart_given_up boolean NOT NULL DEFAULT false;
