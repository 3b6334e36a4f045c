-- One row per statement. The request is on the left and everything that came after it on the
-- right, so that a condition on session, actor or time reaches both scans.
-- An execution is always a row; a Parse is one only when it was refused or failed.
CREATE OR REPLACE VIEW queries AS
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
    if(ending.completions = 0 OR ending.unknowns > 0, 'unknown', ending.outcome) AS outcome,
    ending.error_code AS error_code,
    ending.rows AS rows,
    ending.bytes AS bytes,
    ending.duration_us / 1000 AS duration_ms,
    requested.gateway AS gateway
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

-- What came back, chunk by chunk. Not a column of `queries`: `SELECT *` there would read every
-- row that any database ever returned.
CREATE OR REPLACE VIEW responses AS
SELECT
    statement_id,
    chunk,
    response_rows AS rows,
    audit_events.rows AS row_count,
    session_id,
    ts
FROM audit_events
WHERE event_type = 'Responded';

-- One row per session, refused sign-ins included.
CREATE OR REPLACE VIEW sessions AS
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
        'open') AS outcome,
    multiIf(outcome = 'login_failed', session.login_reason,
        outcome = 'refused' AND session.denial_reason != '', session.denial_reason,
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

-- Offsets of gatebook.masked that are not here, or here twice. A dead letter is missing too.
CREATE OR REPLACE VIEW offset_gaps AS
SELECT
    topic,
    kafka_partition,
    min(kafka_offset) AS lo,
    max(kafka_offset) AS hi,
    count() AS n,
    uniqExact(kafka_offset) AS uniq,
    hi - lo + 1 - uniq AS missing,
    n - uniq AS dup,
    topic_id
FROM audit_events
GROUP BY topic, topic_id, kafka_partition;

-- Links of the gateways' chains that are not here, or here twice. Chains begin at 0.
CREATE OR REPLACE VIEW chain_gaps AS
SELECT
    stream,
    min(seq) AS first_seq,
    max(seq) AS last_seq,
    count() AS events,
    last_seq + 1 - uniqExact(seq) AS missing,
    events - uniqExact(seq) AS duplicates
FROM audit_events
GROUP BY stream;
