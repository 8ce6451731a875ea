-- The roles of the daemons and the least that each must be allowed. Idempotent: whatever else was granted in schema
-- public is taken back first. `cafctl migrate` applies this file as one transaction, as the owner of the database.

-- Peer authentication maps a daemon's uid to its role: there is no password. Roles belong to the whole cluster, so
-- another database's migration may create one at the same moment.
DO $$
DECLARE
    daemon name;
BEGIN
    FOREACH daemon IN ARRAY ARRAY['caf_registry', 'caf_audit', 'caf_event'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = daemon);
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT',
                           daemon);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role % was created meanwhile', daemon;
        END;
    END LOOP;

    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC, caf_registry, caf_audit, caf_event',
                   current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO caf_registry, caf_audit, caf_event', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC, caf_registry, caf_audit, caf_event;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, caf_registry, caf_audit, caf_event;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, caf_registry, caf_audit, caf_event;
REVOKE ALL ON ALL ROUTINES IN SCHEMA public FROM PUBLIC, caf_registry, caf_audit, caf_event;

GRANT USAGE ON SCHEMA public TO caf_registry, caf_audit, caf_event;
GRANT EXECUTE ON FUNCTION caf_time(timestamptz) TO caf_registry, caf_audit, caf_event;
GRANT EXECUTE ON FUNCTION caf_event_id(uuid, text) TO caf_registry, caf_event;

-- registryd. An agent's identity and the time of its first registration are written once. The outbox is not readable:
-- an INSERT there must say ON CONFLICT DO NOTHING without naming the key, which would need SELECT.
GRANT SELECT, INSERT ON agent_registry TO caf_registry;
GRANT UPDATE (hostname, machine_id_fingerprint, endpoint, version, capabilities, metadata, state, last_heartbeat,
              heartbeat_status, last_heartbeat_via, previous_fingerprint, previous_hostname, recent_requests,
              recent_outcomes, changed_xid, fingerprint_source_ip, fingerprint_reported_at,
              previous_fingerprint_source_ip, previous_fingerprint_reported_at, previous_fingerprint_heard_at,
              metadata_at) ON agent_registry TO caf_registry;
GRANT INSERT ON identity_outbox TO caf_registry;
GRANT SELECT, INSERT, DELETE ON nodes TO caf_registry;
GRANT UPDATE (last_seen, applied) ON nodes TO caf_registry;
GRANT EXECUTE ON FUNCTION caf_agent_json(agent_registry) TO caf_registry;
GRANT EXECUTE ON FUNCTION caf_hostname_sharers(text[], text[], text[], timestamptz[]) TO caf_registry;

-- eventd moves events from the outbox to where they stay.
GRANT SELECT, DELETE ON identity_outbox TO caf_event;
GRANT SELECT, INSERT ON security_events TO caf_event;

-- auditd
GRANT SELECT, INSERT ON god_mode_executions TO caf_audit;
