-- Which targets each gateway offered, and which sets were refused. These events are of no session, by
-- which the index finds them.
CREATE OR REPLACE VIEW target_loads AS
SELECT
    e.ts AS loaded_at,
    e.gateway AS gateway,
    e.outcome AS outcome,
    JSONExtractString(e.details, 'digest') AS digest,
    e.reason AS reason,
    JSONExtract(e.details, 'added', 'Array(String)') AS added,
    JSONExtract(e.details, 'changed', 'Array(String)') AS changed,
    JSONExtract(e.details, 'removed', 'Array(String)') AS removed,
    JSONExtractUInt(e.details, 'targets') AS targets
FROM audit_events AS e
WHERE e.session_id = toUUID('00000000-0000-0000-0000-000000000000')
    AND e.event_type = 'TargetsLoaded';

-- `sessions` as in 0012; another kind of event of no session needs no other view.
CREATE OR REPLACE VIEW sessions AS
-- A constant, not a join: conditions must reach the scans as before.
WITH (SELECT maxMap(map(toString(gateway), started_at)) FROM gateway_starts) AS last_starts
SELECT
    session.session_id AS session_id,
    session.actor AS actor,
    session.groups AS groups,
    session.agent AS agent,
    if(session.client_ip = toIPv6('::'), '',
        replaceRegexpOne(IPv6NumToString(session.client_ip), '^::ffff:', '')) AS client_ip,
    session.application AS application,
    session.target AS target,
    session.gateway AS gateway,
    session.first_ts AS started_at,
    if(outcome = 'open', NULL, session.last_ts) AS ended_at,
    multiIf(session.login_failures > 0, 'login_failed',
        session.openings = 0 AND session.denials > 0, 'refused',
        session.closings > 0, 'closed',
        last_starts[toString(session.gateway)] > session.last_ts, 'lost',
        'open') AS outcome,
    multiIf(outcome = 'login_failed', session.login_reason,
        outcome = 'refused' AND session.denial_reason != '', session.denial_reason,
        outcome = 'lost', 'gateway_lost',
        session.close_reason) AS reason,
    queries_of.statements AS statements,
    queries_of.denied AS denied,
    queries_of.failed AS failed,
    queries_of.rows AS rows,
    queries_of.bytes AS bytes,
    dateDiff('microsecond', session.first_ts, session.last_ts) / 1000 AS duration_ms
FROM
(
    SELECT
        e.session_id AS session_id,
        e.actor AS actor,
        e.groups AS groups,
        e.agent AS agent,
        e.client_ip AS client_ip,
        e.application AS application,
        e.target AS target,
        e.gateway AS gateway,
        min(e.ts) AS first_ts,
        max(e.ts) AS last_ts,
        countIf(e.event_type = 'AuthenticationFailed') AS login_failures,
        countIf(e.event_type = 'SessionOpened') AS openings,
        countIf(e.event_type = 'SessionClosed') AS closings,
        countIf(e.event_type = 'Decided' AND e.decision = 'DENY') AS denials,
        anyIf(e.reason, e.event_type = 'AuthenticationFailed') AS login_reason,
        argMinIf(e.reason, e.ts, e.event_type = 'Decided' AND e.decision = 'DENY') AS denial_reason,
        argMaxIf(e.reason, e.ts, e.event_type = 'SessionClosed') AS close_reason
    FROM audit_events AS e
    -- What gateways say of themselves, of whatever kind, and what is recorded at a desk.
    WHERE e.session_id != toUUID('00000000-0000-0000-0000-000000000000')
        AND e.event_type NOT IN ('Unsealed', 'ShareGiven', 'Erased')
    GROUP BY session_id, actor, groups, agent, client_ip, application, target, gateway
) AS session
LEFT JOIN
(
    SELECT
        q.session_id AS session_id,
        count() AS statements,
        countIf(q.outcome = 'denied' OR q.decision = 'DENY') AS denied,
        countIf(q.outcome = 'failed') AS failed,
        sum(q.rows) AS rows,
        sum(q.bytes) AS bytes
    FROM queries AS q
    GROUP BY q.session_id
) AS queries_of
ON session.session_id = queries_of.session_id;
