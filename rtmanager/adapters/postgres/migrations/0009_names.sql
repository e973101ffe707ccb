-- Docker's DNS ignores case. The name that a start claims while it is under way: no two games claim one name at once.
ALTER TABLE operations ADD COLUMN claimed_name text;
CREATE UNIQUE INDEX operations_one_claim_per_name_idx ON operations (claimed_name)
    WHERE state <> 'done' AND claimed_name IS NOT NULL;
-- Not unique: an earlier release let games share a name, and these go on.
CREATE INDEX runtime_records_name_idx ON runtime_records (lower(game_id COLLATE "C")) WHERE status <> 'removed';
