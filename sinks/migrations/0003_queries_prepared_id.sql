-- `queries` as in 0002, and the statement whose text says what an EXECUTE or FETCH ran.
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
