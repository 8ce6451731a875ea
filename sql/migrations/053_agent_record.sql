-- The agent's record as clients see it, spelled in one place; and what was never given is NULL, so that an upsert can
-- tell it from what was given empty.

ALTER TABLE agent_registry ALTER COLUMN capabilities DROP NOT NULL, ALTER COLUMN capabilities DROP DEFAULT;
ALTER TABLE agent_registry ALTER COLUMN metadata DROP NOT NULL, ALTER COLUMN metadata DROP DEFAULT;

CREATE FUNCTION caf_agent_json(r agent_registry) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT json_build_object(
        'agent_id', r.agent_id,
        'tenant_id', r.tenant_id,
        'spiffe_id', r.spiffe_id,
        'hostname', r.hostname,
        'machine_id_fingerprint', r.machine_id_fingerprint,
        'endpoint', r.endpoint,
        'version', r.version,
        'capabilities', COALESCE(r.capabilities, '[]'),
        'metadata', COALESCE(r.metadata, '{}'),
        'state', r.state,
        'registered_at', caf_time(r.registered_at),
        'last_heartbeat', caf_time(r.last_heartbeat),
        'last_heartbeat_via', r.last_heartbeat_via,
        'heartbeat_status', r.heartbeat_status)::text
$$;
