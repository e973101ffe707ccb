-- The database that the Runtime Manager finds in operation: its role owns its schema and is no superuser.
CREATE ROLE rtmanagerservice LOGIN PASSWORD 'rtmanagerservice';
CREATE DATABASE galaxy;
\connect galaxy
CREATE SCHEMA rtmanager AUTHORIZATION rtmanagerservice;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
VACUUM FREEZE ANALYZE;
