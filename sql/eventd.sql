-- What eventd says to PostgreSQL. Each batched statement takes its requests as arrays, $1 their ordinals.

-- name: note
-- Events that frontd saw: the first of its kind, or the repeats of a window. The request of the first note in a row makes
-- its event_id: a row that is sent again is not stored twice. Absent parts of the details are NULL.
INSERT INTO security_events
    (event_id, tenant_id, event_type, severity, spiffe_id, source_ip, details, count,
     occurred_at, recorded_at, node)
SELECT caf_event_id(i.request_id, i.event_type), i.tenant_id, i.event_type, i.severity, i.spiffe_id,
       i.source_ip, i.details || COALESCE(i.sample, '{}') || COALESCE(i.repeats, '{}'), i.count,
       to_timestamp(i.occurred_ms / 1000.0), now(), i.node
FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::jsonb[], $9::jsonb[], $10::jsonb[], $11::bigint[], $12::bigint[], $13::text[])
     AS i(ord, request_id, tenant_id, event_type, severity, spiffe_id, source_ip,
          details, sample, repeats, count, occurred_ms, node)
ON CONFLICT DO NOTHING;

-- name: known
-- The notes of these that an earlier life of eventd stored. What had found no bucket stands under _system.
SELECT i.ord
FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::bigint[])
     AS i(ord, request_id, tenant_id, event_type, occurred_ms)
WHERE EXISTS (
    SELECT FROM security_events e
    WHERE e.tenant_id IN (i.tenant_id, '_system')
      AND e.event_id = caf_event_id(i.request_id, i.event_type)
      AND e.occurred_at = to_timestamp(i.occurred_ms / 1000.0));

-- name: collect
-- Moves announced events out of the outbox: one statement, so that each is in exactly one of the two tables.
WITH wanted AS (
    SELECT i.tenant_id, id::uuid AS event_id
    FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, ids)
    CROSS JOIN LATERAL unnest(string_to_array(i.ids, ',')) AS id
), moved AS (
    DELETE FROM identity_outbox o
    USING wanted w
    WHERE o.tenant_id = w.tenant_id AND o.event_id = w.event_id
    RETURNING o.*
)
INSERT INTO security_events
    (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
     count, occurred_at, recorded_at, node)
SELECT event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
       1, occurred_at, now(), node
FROM moved
ON CONFLICT DO NOTHING;

-- name: sweep
-- The same for what nobody announced, the oldest first: $1 rows at most, none of the last $2 seconds, which are being
-- announced just now: both statements at once could lock the same rows in opposite orders.
WITH oldest AS (
    SELECT tenant_id, event_id
    FROM identity_outbox
    WHERE occurred_at < now() - $2::bigint * interval '1 second'
    ORDER BY occurred_at
    LIMIT $1::bigint
), moved AS (
    DELETE FROM identity_outbox o
    USING oldest w
    WHERE o.tenant_id = w.tenant_id AND o.event_id = w.event_id
    RETURNING o.*
), stored AS (
    INSERT INTO security_events
        (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
         count, occurred_at, recorded_at, node)
    SELECT event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
           1, occurred_at, now(), node
    FROM moved
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM moved;

-- name: list
-- A tenant's events, newest first, from a cursor on. Absent filters are NULL; COALESCE keeps the bounds usable by the index.
SELECT row_to_json(shown)::text,
       (extract(epoch FROM e.occurred_at) * 1000000)::bigint || '-' || e.event_id
FROM security_events e
CROSS JOIN LATERAL (
    SELECT e.event_id, e.tenant_id, e.event_type, e.severity, e.spiffe_id, e.hostname, e.source_ip,
           e.trace_id, e.details, e.count, caf_time(e.occurred_at) AS occurred_at,
           caf_time(e.recorded_at) AS recorded_at, e.node) AS shown
WHERE e.tenant_id = $1
  AND ($2::text IS NULL OR e.event_type = $2)
  AND ($3::text IS NULL OR starts_with(e.event_type, $3))
  AND ($4::text IS NULL OR e.severity = $4)
  AND ($5::text IS NULL OR e.spiffe_id = $5)
  AND e.occurred_at >= COALESCE(to_timestamp($6::bigint / 1000.0), '-infinity')
  AND e.occurred_at < COALESCE(to_timestamp($7::bigint / 1000.0), 'infinity')
  AND (e.occurred_at, e.event_id) < (
        COALESCE('epoch'::timestamptz + $8::bigint * interval '1 microsecond', 'infinity'),
        COALESCE($9::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY e.occurred_at DESC, e.event_id DESC
LIMIT $10::bigint;
