-- What registryd says to PostgreSQL. Each batched statement takes its requests as arrays, $1 their ordinals,
-- and answers with the ordinal in its first column.
--
-- Whatever writes agents locks them in the order of the ordinals, the same on every connection and node (pg_batch.c), so
-- that no two statements wait for each other. Texts order otherwise in some languages; and an UPDATE alone locks in the
-- order of its plan: those here have a part before them that locks.

-- name: register
-- The one upsert. An agent's row is its (tenant_id, spiffe_id); the replaced fingerprint and hostname are kept by the
-- statement itself, so no other registration can slip between reading and writing. A request that this row has already
-- seen, or a state that allows no registration, changes nothing. The events that follow are written beside it.
--
-- outcome is a sum: 1 created, 2 another fingerprint than on record, 4 another hostname, 8 split brain: the fingerprint
-- is back that the one on record had replaced, and under it the agent was heard from within the window. A, B, A is one,
-- at the second A. It was now B that was replaced: should B come back in time (A, B, A, B), that is the next, and so at
-- each return. A, B, C is none: nothing came back. A registration without a fingerprint moves none of this.
-- That others share the hostname is no part of it: the answer does not say it, and a repeated request tells no event.
WITH input AS MATERIALIZED (
    SELECT i.*, to_timestamp(i.received_ms / 1000.0) AS received_at
    FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::jsonb[], $11::jsonb[], $12::text[], $13::text[], $14::text[],
                $15::bigint[], $16::text[])
         AS i(ord, tenant_id, spiffe_id, agent_id, request_id, hostname, fingerprint,
              endpoint, version, capabilities, metadata, source_ip, source_ip_claimed, trace_id,
              received_ms, node)
), settings AS (
    -- The same in every row.
    SELECT ($17::bigint[])[1] * interval '1 second' AS live_for,
           ($18::bigint[])[1] * interval '1 second' AS split_brain_within
), upsert AS (
    INSERT INTO agent_registry AS r
        (tenant_id, spiffe_id, agent_id, hostname, machine_id_fingerprint, fingerprint_source_ip,
         fingerprint_reported_at, endpoint, version, capabilities, metadata, metadata_at, state,
         registered_at, last_heartbeat, last_heartbeat_via, recent_requests, recent_outcomes)
    SELECT tenant_id, spiffe_id, agent_id, hostname, fingerprint,
           CASE WHEN fingerprint IS NOT NULL THEN source_ip END,
           CASE WHEN fingerprint IS NOT NULL THEN received_at END,
           endpoint, version, capabilities, metadata,
           CASE WHEN metadata IS NOT NULL THEN received_at END,
           'active', received_at, received_at, 'certificate', ARRAY[request_id], ARRAY[1]::smallint[]
    FROM input
    ORDER BY ord
    ON CONFLICT (tenant_id, spiffe_id) DO UPDATE SET
        hostname = EXCLUDED.hostname,
        machine_id_fingerprint = COALESCE(EXCLUDED.machine_id_fingerprint, r.machine_id_fingerprint),
        fingerprint_source_ip = COALESCE(EXCLUDED.fingerprint_source_ip, r.fingerprint_source_ip),
        fingerprint_reported_at = COALESCE(EXCLUDED.fingerprint_reported_at, r.fingerprint_reported_at),
        endpoint = COALESCE(EXCLUDED.endpoint, r.endpoint),
        version = COALESCE(EXCLUDED.version, r.version),
        capabilities = COALESCE(EXCLUDED.capabilities, r.capabilities),
        metadata = COALESCE(EXCLUDED.metadata, r.metadata),
        metadata_at = COALESCE(EXCLUDED.metadata_at, r.metadata_at),
        state = 'active',
        last_heartbeat = GREATEST(r.last_heartbeat, EXCLUDED.last_heartbeat),
        last_heartbeat_via = 'certificate',
        previous_fingerprint = CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint
            THEN r.machine_id_fingerprint ELSE r.previous_fingerprint END,
        previous_fingerprint_source_ip = CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint
            THEN r.fingerprint_source_ip ELSE r.previous_fingerprint_source_ip END,
        previous_fingerprint_reported_at = CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint
            THEN r.fingerprint_reported_at ELSE r.previous_fingerprint_reported_at END,
        previous_fingerprint_heard_at = CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint
            THEN r.last_heartbeat ELSE r.previous_fingerprint_heard_at END,
        previous_hostname = r.hostname,
        recent_requests = (EXCLUDED.recent_requests || r.recent_requests)[1:8],
        recent_outcomes = (ARRAY[
            (CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint THEN 2 ELSE 0 END
             + CASE WHEN EXCLUDED.hostname <> r.hostname THEN 4 ELSE 0 END
             + CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint
                     AND EXCLUDED.machine_id_fingerprint = r.previous_fingerprint
                     AND r.previous_fingerprint_heard_at
                         >= EXCLUDED.last_heartbeat - (SELECT split_brain_within FROM settings)
               THEN 8 ELSE 0 END)::smallint]
            || r.recent_outcomes)[1:8],
        changed_xid = pg_current_xact_id()
    WHERE r.state IN ('active', 'deregistered')
      AND NOT EXCLUDED.recent_requests[1] = ANY (r.recent_requests)
    RETURNING r.tenant_id, r.spiffe_id, r.state, r.agent_id, r.hostname, r.machine_id_fingerprint,
              r.fingerprint_source_ip, r.fingerprint_reported_at, r.previous_fingerprint,
              r.previous_fingerprint_source_ip, r.previous_fingerprint_reported_at,
              r.previous_hostname, r.recent_outcomes[1] AS outcome, caf_agent_json(r) AS agent,
              r.changed_xid
), shared AS (
    -- One call, made of all rows of the upsert: it runs when these are written.
    SELECT found.*
    FROM (SELECT array_agg(tenant_id) AS tenant_ids, array_agg(spiffe_id) AS spiffe_ids,
                 array_agg(u.hostname) AS hostnames, array_agg(i.received_at - live_for) AS since
          FROM upsert u
          JOIN input i USING (tenant_id, spiffe_id)
          CROSS JOIN settings) AS written
    CROSS JOIN LATERAL caf_hostname_sharers(tenant_ids, spiffe_ids, hostnames, since) AS found
), happened AS (
    SELECT i.ord, i.request_id, i.source_ip, i.trace_id, i.received_at, i.node,
           u.tenant_id, u.spiffe_id, u.hostname, e.event_type, e.severity,
           jsonb_build_object('agent_id', u.agent_id) || e.details
               || CASE WHEN i.source_ip_claimed IS NULL THEN '{}'
                       ELSE jsonb_build_object('source_ip_claimed', i.source_ip_claimed) END AS details
    FROM upsert u
    JOIN input i USING (tenant_id, spiffe_id)
    LEFT JOIN shared s ON s.tenant = u.tenant_id AND s.identity = u.spiffe_id
    CROSS JOIN LATERAL (VALUES
        (true, 'identity.enrollment_success', 'info',
         jsonb_build_object('created', u.outcome & 1 = 1, 'machine_id_fingerprint', u.machine_id_fingerprint)),
        (u.outcome & 2 = 2, 'identity.fingerprint_drift', 'warn',
         jsonb_build_object('previous_fingerprint', u.previous_fingerprint,
                            'machine_id_fingerprint', u.machine_id_fingerprint)),
        (u.outcome & 4 = 4, 'identity.hostname_changed', 'info',
         jsonb_build_object('previous_hostname', u.previous_hostname, 'hostname', u.hostname)),
        (u.outcome & 8 = 8, 'identity.split_brain', 'error',
         jsonb_build_object('machine_id_fingerprint', u.machine_id_fingerprint,
                            'source_ip', u.fingerprint_source_ip,
                            'reported_at', caf_time(u.fingerprint_reported_at),
                            'previous_fingerprint', u.previous_fingerprint,
                            'previous_source_ip', u.previous_fingerprint_source_ip,
                            'previous_reported_at', caf_time(u.previous_fingerprint_reported_at))),
        (s.others IS NOT NULL, 'identity.hostname_shared', 'warn',
         jsonb_build_object('hostname', u.hostname, 'machine_id_fingerprint', u.machine_id_fingerprint,
                            'others', s.others, 'more', s.more))
    ) AS e(holds, event_type, severity, details)
    WHERE e.holds
), noted AS (
    INSERT INTO identity_outbox
        (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id,
         details, occurred_at, node)
    SELECT caf_event_id(request_id, event_type), tenant_id, event_type, severity, spiffe_id, hostname,
           source_ip, trace_id, details, received_at, node
    FROM happened
    ON CONFLICT DO NOTHING
)
-- outcome is NULL where this request wrote nothing and has not been seen: the state forbids it, or the row was
-- made or changed after this statement's snapshot, whose state (NULL: none) then forbids nothing.
SELECT i.ord,
       COALESCE(u.state, r.state) AS state,
       COALESCE(u.outcome, r.recent_outcomes[array_position(r.recent_requests, i.request_id)]) AS outcome,
       COALESCE(u.agent, caf_agent_json(r)) AS agent,
       h.event_ids,
       COALESCE(u.changed_xid, r.changed_xid) AS changed_xid
FROM input i
LEFT JOIN upsert u USING (tenant_id, spiffe_id)
LEFT JOIN agent_registry r ON u.tenant_id IS NULL
                          AND r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id
LEFT JOIN (SELECT ord, string_agg(caf_event_id(request_id, event_type)::text, ',') AS event_ids
           FROM happened GROUP BY ord) h ON h.ord = i.ord;

-- name: lookup
-- What the cache keeps of an agent.
SELECT i.ord, r.agent_id, r.state, r.changed_xid
FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, spiffe_id)
JOIN agent_registry r ON r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id;

-- name: self
SELECT i.ord, r.state, caf_agent_json(r)
FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, spiffe_id)
JOIN agent_registry r ON r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id;

-- name: write_heartbeat
-- Write-behind. It never brings anybody back: the state guards it. Metadata that were said before those on record, by a
-- heartbeat to one node and a registration at another, or by a write that had to be repeated, do not replace them.
WITH locked AS MATERIALIZED (
    SELECT i.*
    FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::bigint[])
         AS i(ord, tenant_id, spiffe_id, heartbeat_ms, status, metadata, metadata_ms)
    JOIN agent_registry r USING (tenant_id, spiffe_id)
    WHERE r.state IN ('active', 'quarantined')
    ORDER BY i.ord
    FOR NO KEY UPDATE OF r
)
UPDATE agent_registry r
SET last_heartbeat = GREATEST(r.last_heartbeat, to_timestamp(i.heartbeat_ms / 1000.0)),
    last_heartbeat_via = 'certificate',
    heartbeat_status = COALESCE(i.status, r.heartbeat_status),
    metadata = CASE WHEN to_timestamp(i.metadata_ms / 1000.0) < r.metadata_at THEN r.metadata
                    ELSE COALESCE(i.metadata, r.metadata) END,
    metadata_at = GREATEST(r.metadata_at, to_timestamp(i.metadata_ms / 1000.0))
FROM locked i
WHERE r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id AND r.state IN ('active', 'quarantined')
RETURNING i.ord, r.state;

-- name: feed
-- One read of the change feed by node $1. $2: the snapshot whose every change has been applied, NULL at first; $3: the
-- snapshot of the first page when this is another page of one sweep, with $4, $5 and $6 the last row of the page before.
-- $8: whether the node may say to others that it has applied $2.
-- Always answers with this statement's own snapshot and with what names the server's history (system identifier and
-- timeline), beside at most $7 rows: the changes that $2 did not see, and $3 did. Those are of the transactions that were
-- open when $2 was taken, or began later; the two are apart so that each has its index condition, and that a transaction
-- which stays open for long costs nothing.
WITH seen AS (
    INSERT INTO nodes (node, last_seen, applied)
    VALUES ($1, now(), CASE WHEN $8::boolean THEN $2::pg_snapshot END)
    ON CONFLICT (node) DO UPDATE SET last_seen = EXCLUDED.last_seen, applied = EXCLUDED.applied
), here AS (
    SELECT pg_current_snapshot()::text AS snapshot,
           system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS history
    FROM pg_control_system()
), begun_later AS (
    SELECT changed_xid, tenant_id, spiffe_id, state
    FROM agent_registry
    WHERE changed_xid >= pg_snapshot_xmax($2::pg_snapshot)
      AND ($3::pg_snapshot IS NULL OR pg_visible_in_snapshot(changed_xid, $3::pg_snapshot))
      AND (changed_xid, tenant_id, spiffe_id) > ($4::xid8, $5::text, $6::text)
    ORDER BY changed_xid, tenant_id, spiffe_id
    LIMIT $7::int
), open_then AS (
    SELECT changed_xid, tenant_id, spiffe_id, state
    FROM agent_registry
    WHERE changed_xid = ANY (ARRAY(SELECT pg_snapshot_xip($2::pg_snapshot)))
      AND ($3::pg_snapshot IS NULL OR pg_visible_in_snapshot(changed_xid, $3::pg_snapshot))
      AND (changed_xid, tenant_id, spiffe_id) > ($4::xid8, $5::text, $6::text)
    ORDER BY changed_xid, tenant_id, spiffe_id
    LIMIT $7::int
), changes AS (
    SELECT changed_xid, tenant_id, spiffe_id, state
    FROM (SELECT * FROM open_then UNION ALL SELECT * FROM begun_later) AS both_parts
    ORDER BY changed_xid, tenant_id, spiffe_id
    LIMIT $7::int
)
SELECT here.snapshot, here.history, c.changed_xid, c.tenant_id, c.spiffe_id, c.state
FROM here LEFT JOIN changes c ON true
ORDER BY c.changed_xid, c.tenant_id, c.spiffe_id;

-- name: forget_nodes
-- Nodes that have not read the feed for $1 days. One that reads it this moment is not one of them; two nodes that forget
-- at once do not wait for each other.
WITH gone AS (
    SELECT node
    FROM nodes
    WHERE last_seen < now() - $1::int * interval '1 day'
    ORDER BY node
    FOR UPDATE SKIP LOCKED
)
DELETE FROM nodes n
USING gone
WHERE n.node = gone.node
RETURNING n.node, caf_time(n.last_seen);

-- name: revoked
-- A page of at most $3 revoked identities, in the order of the key, after ($1, $2).
SELECT tenant_id, spiffe_id
FROM agent_registry
WHERE state = 'revoked' AND (tenant_id, spiffe_id) > ($1::text, $2::text)
ORDER BY tenant_id, spiffe_id
LIMIT $3::int;

-- name: deregister
-- An active agent goes out of service, and the event is written beside it. A request that this row has already seen
-- changes nothing: sent again after the agent registered anew, it must not take that back.
WITH input AS MATERIALIZED (
    SELECT i.*, to_timestamp(i.received_ms / 1000.0) AS received_at
    FROM unnest($1::int[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[],
                $8::bigint[], $9::text[])
         AS i(ord, tenant_id, spiffe_id, request_id, source_ip, source_ip_claimed, trace_id,
              received_ms, node)
), locked AS MATERIALIZED (
    SELECT i.*
    FROM input i
    JOIN agent_registry r USING (tenant_id, spiffe_id)
    WHERE r.state = 'active'
    ORDER BY i.ord
    FOR NO KEY UPDATE OF r
), changed AS (
    UPDATE agent_registry r
    SET state = 'deregistered',
        recent_requests = (i.request_id || r.recent_requests)[1:8],
        recent_outcomes = (0::smallint || r.recent_outcomes)[1:8],
        changed_xid = pg_current_xact_id()
    FROM locked i
    WHERE r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id AND r.state = 'active'
      AND NOT i.request_id = ANY (r.recent_requests)
    RETURNING i.ord, i.source_ip, i.source_ip_claimed, i.trace_id, i.received_at, i.node,
              r.tenant_id, r.spiffe_id, r.agent_id, r.hostname, r.changed_xid,
              caf_event_id(i.request_id, 'identity.deregistered') AS event_id
), noted AS (
    INSERT INTO identity_outbox
        (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id,
         details, occurred_at, node)
    SELECT event_id, tenant_id, 'identity.deregistered', 'info', spiffe_id, hostname, source_ip, trace_id,
           jsonb_build_object('agent_id', agent_id)
               || CASE WHEN source_ip_claimed IS NULL THEN '{}'
                       ELSE jsonb_build_object('source_ip_claimed', source_ip_claimed) END,
           received_at, node
    FROM changed
    ON CONFLICT DO NOTHING
)
-- r is as this statement's snapshot has it, before the change.
SELECT i.ord, r.state, r.agent_id,
       c.ord IS NOT NULL OR i.request_id = ANY (r.recent_requests) AS done,
       c.event_id, c.changed_xid
FROM input i
JOIN agent_registry r USING (tenant_id, spiffe_id)
LEFT JOIN changed c ON c.ord = i.ord;

-- name: list_agents
-- A tenant's agents, newest heartbeat first, then by SPIFFE ID, both descending; those never heard from are last. The
-- page begins behind ($6, $7), microseconds and SPIFFE ID: a cursor's (never heard from: no microseconds), or the upper
-- bound of the heartbeat, whichever comes later in the list; $5, milliseconds, is that bound again, for the total.
-- Absent ones are NULL. Each state is a range of an index that is in the order of the list, and each hostname is one of
-- another, whatever the states: of each range, no more is read than a page shows. The total, when $9 asks for it, comes
-- in every row; where the page is empty, one row without an agent carries it.
WITH wanted AS NOT MATERIALIZED (
    SELECT *, CASE WHEN $2::text IS NULL AND $3::text IS NOT NULL THEN 'hostname' ELSE state END AS range
    FROM agent_registry
    WHERE tenant_id = $1
      AND ($2::text IS NULL OR state = $2)
      AND ($3::text IS NULL OR hostname = $3)
      AND ($4::text IS NULL OR machine_id_fingerprint = $4)
), page AS (
    SELECT chosen.spiffe_id, chosen.last_heartbeat
    FROM (VALUES ('active'), ('quarantined'), ('revoked'), ('deregistered'), ('hostname')) AS each (range)
    CROSS JOIN LATERAL (
        (SELECT spiffe_id, last_heartbeat
         FROM wanted
         WHERE range = each.range
           AND (last_heartbeat, spiffe_id)
               < (COALESCE(to_timestamp($6::bigint / 1000000.0),
                           CASE WHEN $7::text IS NULL THEN 'infinity'::timestamptz ELSE '-infinity' END),
                  COALESCE($7::text, ''))
         ORDER BY last_heartbeat DESC, spiffe_id DESC
         LIMIT $8::bigint)
        UNION ALL
        (SELECT spiffe_id, NULL
         FROM wanted
         WHERE range = each.range AND last_heartbeat IS NULL
           AND ($6::bigint IS NOT NULL OR $7::text IS NULL OR spiffe_id < $7)
         ORDER BY last_heartbeat DESC, spiffe_id DESC
         LIMIT $8::bigint)) AS chosen
    WHERE ($2::text IS NULL OR each.range = $2)
      AND ($4::text IS NULL OR EXISTS (SELECT FROM wanted WHERE range = each.range))
    ORDER BY chosen.last_heartbeat DESC NULLS LAST, chosen.spiffe_id DESC
    LIMIT $8::bigint
), whole AS (
    SELECT CASE WHEN $9::boolean THEN (
               SELECT count(*)
               FROM wanted
               WHERE $5::bigint IS NULL OR last_heartbeat IS NULL
                  OR last_heartbeat <= to_timestamp($5::bigint / 1000.0))
           END AS total
)
SELECT (SELECT caf_agent_json(r) FROM agent_registry r
        WHERE r.tenant_id = $1 AND r.spiffe_id = page.spiffe_id),
       to_json(COALESCE(((extract(epoch FROM page.last_heartbeat) * 1000000)::bigint)::text, '')
               || '-' || page.spiffe_id),
       whole.total
FROM whole
LEFT JOIN page ON true
ORDER BY page.last_heartbeat DESC NULLS LAST, page.spiffe_id DESC;

-- name: find_agent
SELECT i.ord, caf_agent_json(r)
FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, agent_id)
JOIN agent_registry r ON r.tenant_id = i.tenant_id AND r.agent_id = i.agent_id;
