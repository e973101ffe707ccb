-- A page of the records of one status, without those of the others: what was removed is kept, and there is ever more of it.
CREATE INDEX runtime_records_status_game_idx ON runtime_records (status, game_id);
