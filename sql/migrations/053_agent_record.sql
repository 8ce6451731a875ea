-- The agent's record as clients see it, spelled in one place; and what was never given is NULL, so that an upsert can
-- tell it from what was given empty.

ALTER TABLE agent_registry ALTER COLUMN capabilities DROP NOT NULL, ALTER COLUMN capabilities DROP DEFAULT;
ALTER TABLE agent_registry ALTER COLUMN metadata DROP NOT NULL, ALTER COLUMN metadata DROP DEFAULT;

CREATE FUNCTION caf_agent_json(r agent_registry) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT row_to_json(record)::text
    FROM (SELECT r.agent_id, r.tenant_id, r.spiffe_id, r.hostname, r.machine_id_fingerprint, r.endpoint, r.version,
                 COALESCE(r.capabilities, '[]') AS capabilities,
                 COALESCE(r.metadata, '{}') AS metadata,
                 r.state,
                 caf_time(r.registered_at) AS registered_at,
                 caf_time(r.last_heartbeat) AS last_heartbeat,
                 r.last_heartbeat_via, r.heartbeat_status) AS record
);
