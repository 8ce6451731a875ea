-- One row per (tenant_id, spiffe_id), the key that a registration is upserted on. Rows that break it are merged
-- first: the row with the newest heartbeat stays (no heartbeat is older than any), registered_at becomes the earliest
-- of the group, and a revoked or quarantined identity stays so: a merge gives nobody a right back.

ALTER TABLE agent_registry ADD COLUMN machine_id_fingerprint text;

-- ctid can stand for a row here, because the ALTER TABLE above locks out every other session until the end. Beyond the
-- times, the order compares what the rows hold, so that a tie ends the same on a restored copy.
CREATE TEMPORARY TABLE identity_merge ON COMMIT DROP AS
SELECT ctid AS row_id, tenant_id, spiffe_id, hostname,
       row_number() OVER newest_first AS place,
       min(registered_at) OVER same_identity AS registered_at,
       CASE WHEN bool_or(state = 'revoked') OVER same_identity THEN 'revoked'
            WHEN bool_or(state = 'quarantined') OVER same_identity THEN 'quarantined'
            ELSE state END AS state
FROM agent_registry AS agent
WHERE (tenant_id, spiffe_id) IN (SELECT tenant_id, spiffe_id FROM agent_registry GROUP BY 1, 2 HAVING count(*) > 1)
WINDOW same_identity AS (PARTITION BY tenant_id, spiffe_id),
       newest_first AS (same_identity ORDER BY last_heartbeat DESC NULLS LAST, registered_at DESC,
                        hostname COLLATE "C", to_jsonb(agent)::text COLLATE "C");

DELETE FROM agent_registry AS agent
USING identity_merge AS merge
WHERE agent.ctid = merge.row_id AND merge.place > 1;

UPDATE agent_registry AS agent
SET registered_at = merge.registered_at, state = merge.state
FROM identity_merge AS merge
WHERE agent.ctid = merge.row_id AND merge.place = 1;

-- Values are shown as JSON: what an agent once reported cannot forge a line of the report.
DO $$
DECLARE
    merge record;
BEGIN
    FOR merge IN
        SELECT to_json(tenant_id) AS tenant, to_json(spiffe_id) AS spiffe_id, count(*) AS row_count,
               to_json(max(hostname) FILTER (WHERE place = 1)) AS kept,
               jsonb_agg(DISTINCT hostname) FILTER (WHERE place > 1) AS dropped
        FROM identity_merge
        GROUP BY identity_merge.tenant_id, identity_merge.spiffe_id
        ORDER BY identity_merge.tenant_id, identity_merge.spiffe_id
    LOOP
        RAISE NOTICE 'merged % rows of agent_registry: tenant %, spiffe_id %, kept hostname %, dropped hostnames %',
            merge.row_count, merge.tenant, merge.spiffe_id, merge.kept, merge.dropped;
    END LOOP;
END
$$;

CREATE UNIQUE INDEX ux_agent_registry_tenant_spiffe ON agent_registry (tenant_id, spiffe_id);
