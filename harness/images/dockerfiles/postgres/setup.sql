-- What every new database is copied from.
\connect template1
VACUUM FREEZE ANALYZE;
