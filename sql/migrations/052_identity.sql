-- What a registration and a heartbeat need beside the key: how the row was kept alive, what a registration replaced,
-- what it takes to answer a repeated request the same, and the outbox of its events.

-- ---- Rows that this version cannot hold are named, never changed in silence ----------------------------------------

DO $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(format('%s (%s rows)', to_json(state), row_count), ', ' ORDER BY state) INTO found
    FROM (SELECT state, count(*) AS row_count
          FROM agent_registry
          WHERE state NOT IN ('active', 'quarantined', 'revoked', 'deregistered')
          GROUP BY state) AS unknown;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'agent_registry holds unknown states: %', found
            USING ERRCODE = 'check_violation',
                  HINT = 'Set state to active, quarantined, revoked or deregistered in these rows and run again.';
    END IF;

    SELECT string_agg(line, E'\n' ORDER BY line) INTO found
    FROM (SELECT format('tenant %s, agent_id %s: %s', to_json(tenant_id), to_json(agent_id),
                        jsonb_agg(spiffe_id ORDER BY spiffe_id)) AS line
          FROM agent_registry
          GROUP BY tenant_id, agent_id
          HAVING count(*) > 1
          ORDER BY tenant_id, agent_id
          LIMIT 100) AS shared;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'agent_registry holds several SPIFFE IDs with one agent_id, which is unique per tenant'
            USING ERRCODE = 'unique_violation',
                  DETAIL = found,
                  HINT = 'Remove or rename all but one row of each group and run again.';
    END IF;
END
$$;

-- ---- agent_registry -----------------------------------------------------------------------------------------------

-- recent_requests and recent_outcomes belong together, place by place. changed_xid feeds the caches of other nodes:
-- whatever changes an agent, but for the time of its heartbeat, sets it to pg_current_xact_id().
ALTER TABLE agent_registry
    ADD COLUMN heartbeat_status     text,
    ADD COLUMN last_heartbeat_via   text,
    ADD COLUMN previous_fingerprint text,
    ADD COLUMN previous_hostname    text,
    ADD COLUMN recent_requests      uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN recent_outcomes      smallint[] NOT NULL DEFAULT '{}',
    ADD COLUMN changed_xid          xid8 NOT NULL DEFAULT pg_current_xact_id();

-- Lengths are bytes: what these columns may hold is ASCII.
ALTER TABLE agent_registry
    ADD CONSTRAINT agent_registry_tenant_id_check
        CHECK (octet_length(tenant_id) BETWEEN 1 AND 255 AND NOT starts_with(tenant_id, '_')),
    ADD CONSTRAINT agent_registry_agent_id_check CHECK (octet_length(agent_id) BETWEEN 1 AND 255),
    ADD CONSTRAINT agent_registry_spiffe_id_check CHECK (octet_length(spiffe_id) BETWEEN 1 AND 2048),
    ADD CONSTRAINT agent_registry_hostname_check CHECK (octet_length(hostname) <= 253),
    ADD CONSTRAINT agent_registry_fingerprint_check CHECK (octet_length(machine_id_fingerprint) <= 256),
    ADD CONSTRAINT agent_registry_capabilities_check CHECK (jsonb_typeof(capabilities) = 'array'),
    ADD CONSTRAINT agent_registry_metadata_check CHECK (jsonb_typeof(metadata) = 'object'),
    ADD CONSTRAINT agent_registry_state_check
        CHECK (state IN ('active', 'quarantined', 'revoked', 'deregistered')),
    ADD CONSTRAINT agent_registry_heartbeat_via_check CHECK (last_heartbeat_via IN ('certificate', 'hostname')),
    ADD CONSTRAINT agent_registry_recent_check CHECK (cardinality(recent_requests) = cardinality(recent_outcomes)),
    ADD CONSTRAINT ux_agent_registry_tenant_spiffe PRIMARY KEY USING INDEX ux_agent_registry_tenant_spiffe;

CREATE UNIQUE INDEX ux_agent_registry_tenant_agent ON agent_registry (tenant_id, agent_id);
CREATE INDEX ix_agent_registry_hostname ON agent_registry (tenant_id, hostname, last_heartbeat DESC);
CREATE INDEX ix_agent_registry_heartbeat ON agent_registry (tenant_id, last_heartbeat DESC);
CREATE INDEX ix_agent_registry_changed ON agent_registry (changed_xid);

-- ---- identity_outbox ----------------------------------------------------------------------------------------------

-- Events written in the transaction of what they tell, until they are moved to security_events. Whatever fits here must
-- fit there: the checks are the same.
CREATE TABLE identity_outbox (
    event_id    uuid NOT NULL,
    tenant_id   text NOT NULL,
    event_type  text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('info', 'warn', 'error', 'critical')),
    spiffe_id   text,
    hostname    text,
    source_ip   text,
    trace_id    text,
    details     jsonb NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL,
    node        text,
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX ix_identity_outbox_oldest ON identity_outbox (occurred_at);

-- ---- Functions of the statements ----------------------------------------------------------------------------------
-- Their bodies are bound when they are created: no search_path can redirect a name in them.

-- The id of the event of this type that this request causes: a request that is sent again makes the same id.
-- SHA-256 of 'caf-event', the request's 16 bytes and the type, cut to 16 bytes, as a UUID of version 8 (RFC 9562).
CREATE FUNCTION caf_event_id(request uuid, event_type text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT encode(set_byte(set_byte(digest, 6, (get_byte(digest, 6) & 15) | 128),
                           8, (get_byte(digest, 8) & 63) | 128), 'hex')::uuid
    FROM (SELECT substr(sha256('caf-event'::bytea || uuid_send(request) || convert_to(event_type, 'UTF8')), 1, 16)
         ) AS hashed (digest)
);

-- RFC 3339 in UTC with milliseconds (cut, not rounded), whatever the session's TimeZone and DateStyle.
CREATE FUNCTION caf_time(moment timestamptz) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
