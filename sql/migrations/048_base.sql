-- The tables as they were before version 49: plain, and agent_registry without a unique key of any kind.

CREATE TABLE agent_registry (
    agent_id       text NOT NULL,
    tenant_id      text NOT NULL,
    spiffe_id      text NOT NULL,
    hostname       text NOT NULL,
    endpoint       text,
    version        text,
    capabilities   jsonb NOT NULL DEFAULT '[]',
    metadata       jsonb NOT NULL DEFAULT '{}',
    state          text NOT NULL DEFAULT 'active',
    registered_at  timestamptz NOT NULL DEFAULT now(),
    last_heartbeat timestamptz
);

CREATE TABLE security_events (
    event_id    uuid NOT NULL,
    tenant_id   text NOT NULL,
    event_type  text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('info', 'warn', 'error', 'critical')),
    spiffe_id   text,
    hostname    text,
    source_ip   text,
    trace_id    text,
    details     jsonb NOT NULL DEFAULT '{}',
    count       bigint NOT NULL DEFAULT 1 CHECK (count > 0),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    node        text,
    PRIMARY KEY (tenant_id, event_id)
);
