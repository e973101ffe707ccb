-- What an entry said, in short: a Redis that lost its streams gives their ids again, to other entries. Rows of an earlier
-- release have none. An entry whose id another one had before stands with `#` and its digest behind the stream's name.
ALTER TABLE operations ADD COLUMN entry_digest text;
ALTER TABLE dead_letters ADD COLUMN entry_digest text;
