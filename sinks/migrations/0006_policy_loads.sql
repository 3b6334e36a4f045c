-- Which policies were in force at which gateway, and which sets were refused. These events are of
-- no session, by which the index finds them.
CREATE OR REPLACE VIEW policy_loads AS
SELECT
    e.ts AS loaded_at,
    e.gateway AS gateway,
    e.outcome AS outcome,
    e.policy_digest AS policy_digest,
    e.reason AS reason,
    JSONExtractUInt(e.details, 'files') AS files,
    JSONExtractUInt(e.details, 'policies') AS policies
FROM audit_events AS e
WHERE e.session_id = toUUID('00000000-0000-0000-0000-000000000000')
    AND e.event_type = 'PolicyLoaded';
