-- god_mode_executions and security_events become tables partitioned by month (UTC) and keep their rows. The old table
-- becomes the default partition; caf_create_partitions() then makes the months that its rows need and moves them there.

-- ---- Partitions by month ------------------------------------------------------------------------------------------

-- One partition. bounds: 'DEFAULT' or 'FOR VALUES FROM (...) TO (...)'. The append-only trigger works per statement,
-- on the table that the statement names: a partition of an append-only table needs its own.
CREATE FUNCTION caf_add_partition(parent name, partition name, bounds text) RETURNS void
    LANGUAGE plpgsql
    SECURITY INVOKER
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I %s', partition, parent, bounds);
    IF EXISTS (SELECT FROM pg_trigger
               WHERE tgrelid = format('public.%I', parent)::regclass AND tgname = 'append_only') THEN
        PERFORM public.caf_make_append_only(partition);
    END IF;
END
$$;

-- The months that one table lacks: this one, months_ahead more, and those of the rows in its default partition. Such
-- rows move: the default partition is taken out, its rows are inserted again through the parent, and it is dropped, so
-- that no row is ever updated or deleted. Returns the number of partitions made. A month whose name is taken by a
-- table that is no partition (one that was detached to be archived) is left alone.
CREATE FUNCTION caf_create_partitions_of(parent name, key name, months_ahead integer) RETURNS integer
    LANGUAGE plpgsql
    SECURITY INVOKER
    SET search_path = pg_catalog, public, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    spare CONSTANT name := parent || '_default';
    retired CONSTANT name := parent || '_retired';
    missing timestamptz[];
    month timestamptz;
    occupied boolean;
    moved bigint;
BEGIN
    EXECUTE format(
        $query$
            SELECT array_agg(wanted.month ORDER BY wanted.month)
            FROM (SELECT date_trunc('month', now()) + ahead * interval '1 month' FROM generate_series(0, $1) AS ahead
                  UNION
                  SELECT date_trunc('month', %2$I) FROM public.%1$I WHERE %2$I >= '1970-01-01' AND %2$I < '10000-01-01'
                 ) AS wanted (month)
            WHERE to_regclass(format('public.%%I', $2 || to_char(wanted.month, '_YYYY_MM'))) IS NULL
        $query$, spare, key) INTO missing USING months_ahead, parent;
    IF missing IS NULL THEN
        RETURN 0;
    END IF;

    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', spare) INTO occupied;
    IF occupied THEN
        EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', parent, spare);
        EXECUTE format('ALTER TABLE public.%I RENAME TO %I', spare, retired);
        PERFORM public.caf_add_partition(parent, spare, 'DEFAULT');
    END IF;
    FOREACH month IN ARRAY missing LOOP
        PERFORM public.caf_add_partition(parent, parent || to_char(month, '_YYYY_MM'),
            format('FOR VALUES FROM (%L) TO (%L)', month, month + interval '1 month'));
    END LOOP;
    IF occupied THEN
        EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I', parent, retired);
        GET DIAGNOSTICS moved = ROW_COUNT;
        EXECUTE format('DROP TABLE public.%I', retired);
        RAISE NOTICE '%: % rows moved out of the default partition', parent, moved;
    END IF;
    RETURN cardinality(missing);
END
$$;

-- The same for every table of schema public that is partitioned by range. Idempotent; the owner's alone.
CREATE FUNCTION caf_create_partitions(months_ahead integer DEFAULT 12) RETURNS integer
    LANGUAGE sql
    SECURITY INVOKER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT coalesce(sum(public.caf_create_partitions_of(tables.name, tables.key, months_ahead)), 0)::integer
    FROM (SELECT class.relname AS name, attribute.attname AS key
          FROM pg_partitioned_table AS partitioned
          JOIN pg_class AS class ON class.oid = partitioned.partrelid
          JOIN pg_attribute AS attribute
               ON attribute.attrelid = class.oid AND attribute.attnum = partitioned.partattrs[0]
          WHERE class.relnamespace = 'public'::regnamespace AND partitioned.partstrat = 'r'
          ORDER BY class.relname) AS tables
$$;

-- ---- What is written stays as it was written ----------------------------------------------------------------------

CREATE FUNCTION caf_refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY INVOKER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP;
END
$$;

-- Per statement, so that it also speaks when no row matches and for TRUNCATE; ALWAYS, so that
-- session_replication_role = replica does not silence it.
CREATE FUNCTION caf_make_append_only(append_only_table name) RETURNS void
    LANGUAGE plpgsql
    SECURITY INVOKER
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION public.caf_refuse_change()', append_only_table);
    EXECUTE format('ALTER TABLE ONLY public.%I ENABLE ALWAYS TRIGGER append_only', append_only_table);
END
$$;

-- ---- god_mode_executions ------------------------------------------------------------------------------------------

-- A row is either from before this version, with none of the five columns of the chain, or has all of them.
ALTER TABLE god_mode_executions
    ADD COLUMN status            text CHECK (status IN ('succeeded', 'failed', 'simulated', 'invalid', 'unknown_tool',
                                                        'forbidden', 'rate_limited', 'timed_out', 'replayed',
                                                        'not_executed', 'outcome_unknown')),
    ADD COLUMN spiffe_id         text,
    ADD COLUMN source_ip_claimed text,
    ADD COLUMN correlation_id    text,
    ADD COLUMN idempotency_key   text,
    ADD COLUMN node              text,
    ADD COLUMN seq               bigint,
    ADD COLUMN prev_hash         bytea CHECK (octet_length(prev_hash) = 32),
    ADD COLUMN row_hash          bytea CHECK (octet_length(row_hash) = 32),
    ADD CONSTRAINT god_mode_executions_chain_check
        CHECK (num_nulls(status, node, seq, prev_hash, row_hash) IN (0, 5));

ALTER TABLE god_mode_executions RENAME TO god_mode_executions_default;
CREATE TABLE god_mode_executions (LIKE god_mode_executions_default INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (executed_at);
ALTER TABLE god_mode_executions ATTACH PARTITION god_mode_executions_default DEFAULT;

SELECT caf_make_append_only('god_mode_executions');
SELECT caf_make_append_only('god_mode_executions_default');

-- ---- security_events ----------------------------------------------------------------------------------------------

ALTER TABLE security_events DROP CONSTRAINT security_events_pkey;
ALTER TABLE security_events RENAME TO security_events_default;
CREATE TABLE security_events (LIKE security_events_default INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (occurred_at);
ALTER TABLE security_events ATTACH PARTITION security_events_default DEFAULT;

-- ---- The rows move, then the keys and the indexes of the lists: newest first within a tenant -----------------------

SELECT caf_create_partitions();

ALTER TABLE god_mode_executions ADD PRIMARY KEY (tenant_id, trace_id, executed_at);
CREATE INDEX ix_god_mode_executions_newest ON god_mode_executions (tenant_id, executed_at DESC, trace_id DESC);
CREATE INDEX ix_god_mode_executions_chain ON god_mode_executions (node, seq);

ALTER TABLE security_events ADD PRIMARY KEY (tenant_id, event_id, occurred_at);
CREATE INDEX ix_security_events_newest ON security_events (tenant_id, occurred_at DESC, event_id DESC);
-- text_pattern_ops serves a whole type and a prefix such as identity.* alike.
CREATE INDEX ix_security_events_type
    ON security_events (tenant_id, event_type text_pattern_ops, occurred_at DESC, event_id DESC);
