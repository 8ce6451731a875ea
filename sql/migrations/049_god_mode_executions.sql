-- One row per call of an administrative tool. tool and risk_level are null where none could be read or found.

CREATE TABLE god_mode_executions (
    trace_id    text NOT NULL,
    tenant_id   text NOT NULL,
    api_key_id  text NOT NULL,
    source_ip   text,
    tool        text,
    params      jsonb,
    risk_level  text,
    result      jsonb,
    error_code  text,
    error       text,
    executed_at timestamptz NOT NULL DEFAULT now(),
    duration_ms bigint NOT NULL DEFAULT 0 CHECK (duration_ms >= 0)
);
