-- One row per start of a gateway. The index by session finds these events, which are of none.
CREATE OR REPLACE VIEW gateway_starts AS
SELECT
    e.ts AS started_at,
    e.gateway AS gateway,
    toUUID(JSONExtractString(e.details, 'instance')) AS instance,
    JSONExtractString(e.details, 'version') AS version,
    e.policy_digest AS policy_digest
FROM audit_events AS e
WHERE e.session_id = toUUID('00000000-0000-0000-0000-000000000000')
    AND e.event_type = 'StreamBegan' AND JSONExtractString(e.details, 'follows') = '';

-- `queries` as in 0003; what ran in a process that another has replaced is lost, not unknown.
CREATE OR REPLACE VIEW queries AS
-- A constant, not a join: conditions must reach the scans as before.
WITH (SELECT maxMap(map(toString(gateway), started_at)) FROM gateway_starts) AS last_starts
SELECT
    requested.ts AS started_at,
    requested.actor AS actor,
    requested.groups AS groups,
    requested.agent AS agent,
    if(requested.client_ip = toIPv6('::'), '',
        replaceRegexpOne(IPv6NumToString(requested.client_ip), '^::ffff:', '')) AS client_ip,
    requested.application AS application,
    requested.target AS target,
    requested.session_id AS session_id,
    requested.statement_id AS statement_id,
    requested.statement AS statement,
    ending.decision AS decision,
    ending.policies AS policies,
    -- A request that nobody completed, or whose completion was not recorded, may have run.
    multiIf(
        ending.unknowns > 0, 'unknown',
        ending.completions > 0, ending.outcome,
        last_starts[toString(requested.gateway)] > requested.ts, 'lost',
        'unknown') AS outcome,
    ending.error_code AS error_code,
    ending.rows AS rows,
    ending.bytes AS bytes,
    ending.duration_us / 1000 AS duration_ms,
    requested.gateway AS gateway,
    requested.prepared_id AS prepared_id
FROM
(
    SELECT * FROM audit_events WHERE event_type = 'Requested' AND action IN ('execute', 'prepare')
) AS requested
LEFT JOIN
(
    SELECT
        e.session_id AS session_id,
        e.statement_id AS statement_id,
        argMaxIf(e.decision, e.ts, e.event_type = 'Decided') AS decision,
        argMaxIf(e.policies, e.ts, e.event_type = 'Decided') AS policies,
        countIf(e.event_type = 'Completed') AS completions,
        countIf(e.event_type = 'Completed' AND e.outcome = 'unknown') AS unknowns,
        argMaxIf(e.outcome, e.ts, e.event_type = 'Completed') AS outcome,
        argMaxIf(e.error_code, e.ts, e.event_type = 'Completed') AS error_code,
        maxIf(e.rows, e.event_type = 'Completed') AS rows,
        maxIf(e.bytes, e.event_type = 'Completed') AS bytes,
        maxIf(e.duration_us, e.event_type = 'Completed') AS duration_us
    FROM audit_events AS e
    WHERE e.event_type IN ('Decided', 'Completed')
    GROUP BY e.session_id, e.statement_id
) AS ending
ON requested.session_id = ending.session_id AND requested.statement_id = ending.statement_id
WHERE requested.action = 'execute' OR decision = 'DENY' OR outcome IN ('denied', 'failed');

-- `sessions` as in 0002; without an end they are lost once their gateway was started again.
-- Only what comes later says that a process lives on: then they are as they were.
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
    WHERE e.event_type != 'StreamBegan'
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
