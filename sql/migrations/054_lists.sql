-- The indexes of the lists. Each is in the order of its list, newest first, behind what the list can be filtered by, so
-- that a page reads little more than it shows, however rare or common that is. While they are made nobody writes these
-- tables; they can be read until those that they replace are dropped, which is last for that reason.

-- ---- agent_registry -----------------------------------------------------------------------------------------------
-- Every heartbeat that is written moves its agent in each index that has the time in it, which makes them grow: only
-- two have it. Of one hostname there are few states: state stands last, for a look into the index alone.

CREATE INDEX ix_agent_registry_newest ON agent_registry (tenant_id, state, last_heartbeat DESC, spiffe_id DESC);
CREATE INDEX ix_agent_registry_host ON agent_registry (tenant_id, hostname, last_heartbeat DESC, spiffe_id DESC, state);
CREATE INDEX ix_agent_registry_fingerprint
    ON agent_registry (tenant_id, machine_id_fingerprint, state) WHERE machine_id_fingerprint IS NOT NULL;

-- ---- security_events ----------------------------------------------------------------------------------------------
-- Types are compared as bytes, for a prefix such as identity.* is then one range of them.

CREATE INDEX ix_security_events_kind
    ON security_events (tenant_id, event_type COLLATE "C", severity, occurred_at DESC, event_id DESC);
CREATE INDEX ix_security_events_identity
    ON security_events (tenant_id, spiffe_id, event_type COLLATE "C", severity, occurred_at DESC, event_id DESC);

-- ---- What these replace -------------------------------------------------------------------------------------------

DROP INDEX ix_agent_registry_heartbeat, ix_agent_registry_hostname, ix_security_events_type;
