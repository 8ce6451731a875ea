-- What registryd says to PostgreSQL. Each batched statement takes its requests as arrays, $1 their ordinals,
-- and answers with the ordinal in its first column.

-- name: register
-- The one upsert. An agent's row is its (tenant_id, spiffe_id); the replaced fingerprint and hostname are kept by the
-- statement itself, so no other registration can slip between reading and writing. A request that this row has already
-- seen, or a state that allows no registration, changes nothing. The events that follow are written beside it.
WITH input AS MATERIALIZED (
    SELECT i.*, to_timestamp(i.received_ms / 1000.0) AS received_at
    FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::jsonb[], $11::jsonb[], $12::text[], $13::text[],
                $14::bigint[], $15::text[])
         AS i(ord, tenant_id, spiffe_id, agent_id, request_id, hostname, fingerprint,
              endpoint, version, capabilities, metadata, source_ip, trace_id, received_ms, node)
), upsert AS (
    INSERT INTO agent_registry AS r
        (tenant_id, spiffe_id, agent_id, hostname, machine_id_fingerprint, endpoint, version,
         capabilities, metadata, state, registered_at, last_heartbeat, last_heartbeat_via,
         recent_requests, recent_outcomes)
    SELECT tenant_id, spiffe_id, agent_id, hostname, fingerprint, endpoint, version,
           capabilities, metadata, 'active', received_at, received_at, 'certificate',
           ARRAY[request_id], ARRAY[1]::smallint[]
    FROM input
    ORDER BY tenant_id, spiffe_id
    ON CONFLICT (tenant_id, spiffe_id) DO UPDATE SET
        hostname = EXCLUDED.hostname,
        machine_id_fingerprint = COALESCE(EXCLUDED.machine_id_fingerprint, r.machine_id_fingerprint),
        endpoint = COALESCE(EXCLUDED.endpoint, r.endpoint),
        version = COALESCE(EXCLUDED.version, r.version),
        capabilities = COALESCE(EXCLUDED.capabilities, r.capabilities),
        metadata = COALESCE(EXCLUDED.metadata, r.metadata),
        state = 'active',
        last_heartbeat = GREATEST(r.last_heartbeat, EXCLUDED.last_heartbeat),
        last_heartbeat_via = 'certificate',
        previous_fingerprint = r.machine_id_fingerprint,
        previous_hostname = r.hostname,
        recent_requests = (EXCLUDED.recent_requests || r.recent_requests)[1:8],
        recent_outcomes = (ARRAY[
            (CASE WHEN EXCLUDED.machine_id_fingerprint <> r.machine_id_fingerprint THEN 2 ELSE 0 END
             + CASE WHEN EXCLUDED.hostname <> r.hostname THEN 4 ELSE 0 END)::smallint]
            || r.recent_outcomes)[1:8],
        changed_xid = pg_current_xact_id()
    WHERE r.state IN ('active', 'deregistered')
      AND NOT EXCLUDED.recent_requests[1] = ANY (r.recent_requests)
    RETURNING r.tenant_id, r.spiffe_id, r.state, r.agent_id, r.hostname, r.machine_id_fingerprint,
              r.previous_fingerprint, r.previous_hostname, r.recent_outcomes[1] AS outcome,
              caf_agent_json(r) AS agent
), happened AS (
    SELECT i.ord, i.request_id, i.source_ip, i.trace_id, i.received_at, i.node,
           u.tenant_id, u.spiffe_id, u.hostname, e.event_type, e.severity, e.details
    FROM upsert u
    JOIN input i USING (tenant_id, spiffe_id)
    CROSS JOIN LATERAL (VALUES
        (0, 'identity.enrollment_success', 'info',
         jsonb_build_object('agent_id', u.agent_id, 'created', u.outcome & 1 = 1,
                            'machine_id_fingerprint', u.machine_id_fingerprint)),
        (2, 'identity.fingerprint_drift', 'warn',
         jsonb_build_object('agent_id', u.agent_id, 'previous_fingerprint', u.previous_fingerprint,
                            'machine_id_fingerprint', u.machine_id_fingerprint)),
        (4, 'identity.hostname_changed', 'info',
         jsonb_build_object('agent_id', u.agent_id, 'previous_hostname', u.previous_hostname,
                            'hostname', u.hostname))
    ) AS e(flag, event_type, severity, details)
    WHERE u.outcome & e.flag = e.flag
), noted AS (
    INSERT INTO identity_outbox
        (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id,
         details, occurred_at, node)
    SELECT caf_event_id(request_id, event_type), tenant_id, event_type, severity, spiffe_id, hostname,
           source_ip, trace_id, details, received_at, node
    FROM happened
    ON CONFLICT DO NOTHING
)
-- outcome is NULL where this request wrote nothing and has not been seen: the state forbids it, or the row came
-- after this statement's snapshot (state is NULL then too).
SELECT i.ord,
       COALESCE(u.state, r.state) AS state,
       COALESCE(u.outcome, r.recent_outcomes[array_position(r.recent_requests, i.request_id)]) AS outcome,
       COALESCE(u.agent, caf_agent_json(r)) AS agent,
       h.event_ids
FROM input i
LEFT JOIN upsert u USING (tenant_id, spiffe_id)
LEFT JOIN agent_registry r ON u.tenant_id IS NULL
                          AND r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id
LEFT JOIN (SELECT ord, string_agg(caf_event_id(request_id, event_type)::text, ',') AS event_ids
           FROM happened GROUP BY ord) h ON h.ord = i.ord;

-- name: lookup
-- What the cache keeps of an agent.
SELECT i.ord, r.agent_id, r.state
FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, spiffe_id)
JOIN agent_registry r ON r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id;

-- name: self
SELECT i.ord, r.state, caf_agent_json(r)
FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, spiffe_id)
JOIN agent_registry r ON r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id;

-- name: write_heartbeat
-- Write-behind. It never brings anybody back: the state guards it.
UPDATE agent_registry r
SET last_heartbeat = GREATEST(r.last_heartbeat, to_timestamp(i.heartbeat_ms / 1000.0)),
    last_heartbeat_via = 'certificate',
    heartbeat_status = COALESCE(i.status, r.heartbeat_status),
    metadata = COALESCE(i.metadata, r.metadata)
FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[])
     AS i(ord, tenant_id, spiffe_id, heartbeat_ms, status, metadata)
WHERE r.tenant_id = i.tenant_id AND r.spiffe_id = i.spiffe_id AND r.state IN ('active', 'quarantined')
RETURNING i.ord, r.state;
