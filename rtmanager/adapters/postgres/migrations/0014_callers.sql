-- The name of the REST caller who requested an operation, for the operator: that of its token, else what it claims. Null
-- for other sources, and for rows of an earlier release.
ALTER TABLE operations ADD COLUMN caller text;
ALTER TABLE operation_log ADD COLUMN caller text;
