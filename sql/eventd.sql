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
-- Moves announced events out of the outbox: one statement, so that each is in exactly one of the two tables. Answers with
-- the types of what it moved.
WITH wanted AS (
    SELECT i.ord, i.tenant_id, id::uuid AS event_id
    FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, tenant_id, ids)
    CROSS JOIN LATERAL unnest(string_to_array(i.ids, ',')) AS id
), moved AS (
    DELETE FROM identity_outbox o
    USING wanted w
    WHERE o.tenant_id = w.tenant_id AND o.event_id = w.event_id
    RETURNING w.ord, o.*
), stored AS (
    INSERT INTO security_events
        (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
         count, occurred_at, recorded_at, node)
    SELECT event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id, details,
           1, occurred_at, now(), node
    FROM moved
    ON CONFLICT DO NOTHING
)
SELECT ord, event_type FROM moved;

-- name: sweep
-- The same for what nobody announced, the oldest first: $1 rows at most, none of the last $2 seconds, which are being
-- announced just now: both statements at once could lock the same rows in opposite orders. One row has no type: how many
-- milliseconds the oldest event had been in the outbox.
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
SELECT event_type, NULL::bigint FROM moved
UNION ALL
SELECT NULL, COALESCE(GREATEST(extract(epoch FROM now() - min(occurred_at)) * 1000, 0), 0)::bigint
FROM identity_outbox;

-- name: list
-- A tenant's events, newest first, then by id, both descending. The page begins behind ($3, $4), microseconds and id:
-- a cursor's, or the upper bound of the time, whichever comes later in the list; $2 is its lower bound, milliseconds.
-- Absent ones are NULL. $3 is compared twice: alone it chooses the partitions, with $4 it is the exact place.
SELECT row_to_json(shown)::text,
       to_json((extract(epoch FROM e.occurred_at) * 1000000)::bigint || '-' || e.event_id)
FROM security_events e
CROSS JOIN LATERAL (
    SELECT e.event_id, e.tenant_id, e.event_type, e.severity, e.spiffe_id, e.hostname, e.source_ip,
           e.trace_id, e.details, e.count, caf_time(e.occurred_at) AS occurred_at,
           caf_time(e.recorded_at) AS recorded_at, e.node) AS shown
WHERE e.tenant_id = $1
  AND e.occurred_at >= COALESCE(to_timestamp($2::bigint / 1000.0), '-infinity')
  AND e.occurred_at <= COALESCE(to_timestamp($3::bigint / 1000000.0), 'infinity')
  AND (e.occurred_at, e.event_id) < (COALESCE(to_timestamp($3::bigint / 1000000.0), 'infinity'),
                                     COALESCE($4::uuid, '00000000-0000-0000-0000-000000000000'))
ORDER BY e.occurred_at DESC, e.event_id DESC
LIMIT $5::bigint;

-- name: list_filtered
-- The same of some types ($6 exactly, or $7 at their beginning), of a severity ($8), of an identity ($9). However rare
-- they are, little more is read than the page shows: the few kinds that there are, types with their severities, are
-- found one from the other, and each kind is a range of an index that is in the order of the list. "C" is the order of
-- bytes, which a prefix needs.
WITH RECURSIVE kind AS (
    (SELECT e.event_type COLLATE "C" AS event_type, e.severity
     FROM security_events e
     WHERE e.tenant_id = $1 AND ($9::text IS NULL OR e.spiffe_id = $9)
       AND e.event_type COLLATE "C" >= COALESCE($6::text, $7::text, '')
     ORDER BY e.event_type COLLATE "C", e.severity
     LIMIT 1)
    UNION ALL
    SELECT next.event_type, next.severity
    FROM kind
    CROSS JOIN LATERAL (
        SELECT e.event_type COLLATE "C" AS event_type, e.severity
        FROM security_events e
        WHERE e.tenant_id = $1 AND ($9::text IS NULL OR e.spiffe_id = $9)
          AND (e.event_type COLLATE "C", e.severity) > (kind.event_type, kind.severity)
        ORDER BY e.event_type COLLATE "C", e.severity
        LIMIT 1) AS next
    WHERE starts_with(kind.event_type, COALESCE($6::text, $7::text, ''))
)
SELECT row_to_json(shown)::text,
       to_json((extract(epoch FROM e.occurred_at) * 1000000)::bigint || '-' || e.event_id)
FROM (
    SELECT chosen.*
    FROM kind
    CROSS JOIN LATERAL (
        SELECT e.*
        FROM security_events e
        WHERE e.tenant_id = $1 AND ($9::text IS NULL OR e.spiffe_id = $9)
          AND e.event_type COLLATE "C" = kind.event_type AND e.severity = kind.severity
          AND e.occurred_at >= COALESCE(to_timestamp($2::bigint / 1000.0), '-infinity')
          AND e.occurred_at <= COALESCE(to_timestamp($3::bigint / 1000000.0), 'infinity')
          AND (e.occurred_at, e.event_id) < (COALESCE(to_timestamp($3::bigint / 1000000.0), 'infinity'),
                                             COALESCE($4::uuid, '00000000-0000-0000-0000-000000000000'))
        ORDER BY e.occurred_at DESC, e.event_id DESC
        LIMIT $5::bigint) AS chosen
    WHERE ($6::text IS NULL OR kind.event_type = $6)
      AND ($7::text IS NULL OR starts_with(kind.event_type, $7))
      AND ($8::text IS NULL OR kind.severity = $8)
    ORDER BY chosen.occurred_at DESC, chosen.event_id DESC
    LIMIT $5::bigint) AS e
CROSS JOIN LATERAL (
    SELECT e.event_id, e.tenant_id, e.event_type, e.severity, e.spiffe_id, e.hostname, e.source_ip,
           e.trace_id, e.details, e.count, caf_time(e.occurred_at) AS occurred_at,
           caf_time(e.recorded_at) AS recorded_at, e.node) AS shown
ORDER BY e.occurred_at DESC, e.event_id DESC;
