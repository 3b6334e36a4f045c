-- Which classified columns a copy was masked by: a later configuration masks otherwise, and whoever
-- checks a copy must tell that from an alteration. Rows of before have none.
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS
    classification LowCardinality(String) COMMENT 'SHA-256 of the classified columns it was masked by'
    AFTER masks;
