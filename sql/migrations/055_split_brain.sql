-- What tells a cloned identity from one that moved: where its fingerprint came from, and which one that replaced; who
-- else reports a hostname; and when the metadata on record was said, so that an older one cannot replace it.

-- ---- agent_registry -----------------------------------------------------------------------------------------------

-- fingerprint_…: of the last registration that gave machine_id_fingerprint. previous_fingerprint_…: the same of the one
-- that it replaced (from now on previous_fingerprint stays until the next change), and when the agent was last heard
-- from before that. metadata_at: when the metadata was said, NULL for as long as nobody has since this version.
ALTER TABLE agent_registry
    ADD COLUMN fingerprint_source_ip            text,
    ADD COLUMN fingerprint_reported_at          timestamptz,
    ADD COLUMN previous_fingerprint_source_ip   text,
    ADD COLUMN previous_fingerprint_reported_at timestamptz,
    ADD COLUMN previous_fingerprint_heard_at    timestamptz,
    ADD COLUMN metadata_at                      timestamptz;

ALTER TABLE agent_registry
    ADD CONSTRAINT agent_registry_fingerprint_source_ip_check CHECK (octet_length(fingerprint_source_ip) <= 64),
    ADD CONSTRAINT agent_registry_previous_fingerprint_source_ip_check
        CHECK (octet_length(previous_fingerprint_source_ip) <= 64);

-- ---- Functions of the statements ----------------------------------------------------------------------------------

-- For each agent (place by place in the arrays) that shares its hostname with others of its tenant, heard from since
-- heard_since: at most 8 of these, newest heartbeat first, and whether there are more. For registrations, at the end of
-- their own statement, in whose transaction it runs.
--
-- Two registrations at the same moment: each would look before the other commits, and neither would be told. So whoever
-- looks first takes its hostname's lock, which lasts until its commit, and looks afterwards: a VOLATILE function's
-- queries see, in READ COMMITTED, what was committed before each of them, and what their own statement wrote (its batch).
-- Of two registrations, on any connection and node, the second to get the lock sees the first.
--
-- Nobody waits for each other in a ring: a statement asks for these locks when it has all its rows, in ascending order,
-- and nothing after them. A hostname's lock is one of 64: they bound what a statement takes of the server's lock table.
CREATE FUNCTION caf_hostname_sharers(tenant_ids text[], spiffe_ids text[], hostnames text[], heard_since timestamptz[])
    RETURNS TABLE (tenant text, identity text, others jsonb, more boolean)
    LANGUAGE plpgsql
    VOLATILE
    SECURITY INVOKER
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    locks CONSTANT integer := 6512998; -- 'caf' as a number: the first half of these locks' names
BEGIN
    PERFORM pg_advisory_xact_lock(locks, slot)
    FROM (SELECT DISTINCT hashtext(asked.tenant_id || '/' || asked.hostname) & 63 AS slot
          FROM unnest(tenant_ids, hostnames) AS asked (tenant_id, hostname)
          ORDER BY slot) AS slots;

    RETURN QUERY
    SELECT asked.tenant_id, asked.spiffe_id,
           jsonb_agg(jsonb_build_object('agent_id', other.agent_id, 'spiffe_id', other.spiffe_id,
                                        'machine_id_fingerprint', other.machine_id_fingerprint,
                                        'last_heartbeat', caf_time(other.last_heartbeat))
                     ORDER BY other.place) FILTER (WHERE other.place <= 8),
           count(*) > 8
    FROM unnest(tenant_ids, spiffe_ids, hostnames, heard_since) AS asked (tenant_id, spiffe_id, hostname, since)
    CROSS JOIN LATERAL (
        SELECT agent.*, row_number() OVER (ORDER BY agent.last_heartbeat DESC ROWS UNBOUNDED PRECEDING) AS place
        FROM agent_registry AS agent
        WHERE agent.tenant_id = asked.tenant_id AND agent.hostname = asked.hostname
          AND agent.last_heartbeat >= asked.since
          AND agent.state IN ('active', 'quarantined') AND agent.spiffe_id <> asked.spiffe_id
        ORDER BY agent.last_heartbeat DESC
        LIMIT 9) AS other
    GROUP BY asked.tenant_id, asked.spiffe_id;
END
$$;
