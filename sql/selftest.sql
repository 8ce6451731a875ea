-- What every daemon runs as its own role when it first connects. It refuses to run when a row or an error comes back.
--
-- Both statements are given what the role needs, as entries 'table:PRIVILEGE' or, for single columns,
-- 'table(column):PRIVILEGE', of tables in schema public. They speak of anything else that the role can do, and of
-- anything on the list that it cannot.

-- name: selftest_catalogue
-- $1: the entries, text[]. One row of text for each thing that the role has and must not have, or lacks.
WITH role AS (
    SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user
), schema AS (
    SELECT oid, nspname
    FROM pg_catalog.pg_namespace
    WHERE nspname <> 'information_schema' AND NOT starts_with(nspname, 'pg_')
), relation AS (
    -- A superuser may do everything: one row that says so is enough. name is null where no entry can allow anything.
    SELECT class.oid, class.relkind, class.oid::regclass::text AS label,
           CASE WHEN schema.nspname = 'public' THEN class.relname::text END AS name
    FROM pg_catalog.pg_class AS class
    JOIN schema ON schema.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT (SELECT rolsuper FROM role)
), table_privilege (privilege) AS (
    VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER'),
           ('SELECT WITH GRANT OPTION'), ('INSERT WITH GRANT OPTION'), ('UPDATE WITH GRANT OPTION'),
           ('DELETE WITH GRANT OPTION'), ('TRUNCATE WITH GRANT OPTION'), ('REFERENCES WITH GRANT OPTION'),
           ('TRIGGER WITH GRANT OPTION')
), column_privilege (privilege) AS (
    VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES'),
           ('SELECT WITH GRANT OPTION'), ('INSERT WITH GRANT OPTION'), ('UPDATE WITH GRANT OPTION'),
           ('REFERENCES WITH GRANT OPTION')
), needed AS (
    SELECT entry, class.oid AS table_oid, part[2] AS column_name, part[3] AS privilege
    FROM unnest($1::text[]) AS entry
    CROSS JOIN LATERAL regexp_match(entry, '^([^(:]+)(?:\(([^)]+)\))?:([A-Z]+)$') AS part
    LEFT JOIN pg_catalog.pg_class AS class
         ON class.relname = part[1] AND class.relnamespace = (SELECT oid FROM schema WHERE nspname = 'public')
)
SELECT finding
FROM (
    SELECT 'the role is ' || attribute
    FROM role, LATERAL (VALUES (rolsuper, 'SUPERUSER'), (rolbypassrls, 'BYPASSRLS'), (rolcreaterole, 'CREATEROLE'),
                               (rolcreatedb, 'CREATEDB'), (rolreplication, 'REPLICATION')) AS list (held, attribute)
    WHERE held
    UNION ALL
    SELECT format('the session began as role %I', session_user)
    WHERE session_user <> current_user
    UNION ALL
    SELECT format('the role is a member of %s', membership.roleid::regrole)
    FROM pg_catalog.pg_auth_members AS membership
    JOIN role ON role.oid = membership.member
    UNION ALL
    SELECT CASE WHEN dependency.dbid IN (0, here.oid)
                THEN format('the role owns %s', pg_describe_object(dependency.classid, dependency.objid, 0))
                ELSE format('the role owns an object in database %I', elsewhere.datname) END
    FROM pg_catalog.pg_shdepend AS dependency
    JOIN role ON role.oid = dependency.refobjid
    JOIN pg_catalog.pg_database AS here ON here.datname = current_database()
    LEFT JOIN pg_catalog.pg_database AS elsewhere ON elsewhere.oid = dependency.dbid
    WHERE dependency.refclassid = 'pg_catalog.pg_authid'::regclass AND dependency.deptype = 'o'
    UNION ALL
    SELECT format('the role has %s on database %I', privilege, current_database())
    FROM role, (VALUES ('CREATE'), ('TEMPORARY')) AS list (privilege)
    WHERE NOT rolsuper AND has_database_privilege(current_database(), privilege)
    UNION ALL
    SELECT format('the role has CREATE on schema %I', namespace.nspname)
    FROM role, pg_catalog.pg_namespace AS namespace
    WHERE NOT rolsuper AND has_schema_privilege(namespace.oid, 'CREATE')
    UNION ALL
    SELECT format('the role has EXECUTE on %s, which runs as its owner', routine.oid::regprocedure)
    FROM role, pg_catalog.pg_proc AS routine
    JOIN schema ON schema.oid = routine.pronamespace
    WHERE NOT rolsuper AND routine.prosecdef AND has_function_privilege(routine.oid, 'EXECUTE')
    UNION ALL
    SELECT format('the role has %s on sequence %s', privilege, label)
    FROM relation, (VALUES ('USAGE'), ('SELECT'), ('UPDATE')) AS list (privilege)
    WHERE relkind = 'S' AND has_sequence_privilege(oid, privilege)
    UNION ALL
    SELECT format('the role has %s on table %s', privilege, label)
    FROM relation, table_privilege
    WHERE relkind <> 'S' AND has_table_privilege(oid, privilege)
          AND (name || ':' || privilege = ANY ($1)) IS NOT TRUE
    UNION ALL
    SELECT format('the role has %s on column %I of table %s', privilege, attribute.attname, label)
    FROM relation
    JOIN pg_catalog.pg_attribute AS attribute
         ON attribute.attrelid = relation.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped,
         column_privilege
    WHERE relkind <> 'S' AND has_column_privilege(relation.oid, attribute.attnum, privilege)
          AND NOT has_table_privilege(relation.oid, privilege)
          AND (name || ':' || privilege = ANY ($1)) IS NOT TRUE
          AND (format('%s(%s):%s', name, attribute.attname, privilege) = ANY ($1) AND name IS NOT NULL) IS NOT TRUE
    UNION ALL
    SELECT 'the role lacks USAGE on schema public'
    WHERE NOT has_schema_privilege('public', 'USAGE')
    UNION ALL
    SELECT format('the role lacks %s', coalesce(entry, 'an entry'))
    FROM needed
    WHERE CASE
              WHEN table_oid IS NULL THEN true
              WHEN column_name IS NOT NULL THEN NOT EXISTS (
                  SELECT FROM pg_catalog.pg_attribute AS attribute
                  WHERE attribute.attrelid = table_oid AND attribute.attname = column_name
                        AND has_column_privilege(table_oid, attribute.attnum, privilege))
              WHEN privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                  THEN NOT has_any_column_privilege(table_oid, privilege)
              ELSE NOT has_table_privilege(table_oid, privilege)
          END
) AS findings (finding)
WHERE finding IS NOT NULL;

-- name: selftest_attempts
-- The entries, joined by commas, are in the setting caf.selftest_allowed. Runs in a transaction of its own, and raises an
-- exception for the first attempt that does not end as it must: SQLSTATE 42501 where the privilege is not on the list,
-- 00000 where it is. The exception's own SQLSTATE is P0001 when the role could do what it must not (a trigger that
-- stepped in, itself P0001, says so too), else that of the attempt: a privilege lacks, or a lock or the server stood in
-- the way, and it may be tried again. No attempt names a column that it would need another privilege for, none can match
-- a row, and each is undone: its subtransaction always ends in an exception (CAF00 stands for "nothing stopped it").
DO $selftest$
DECLARE
    allowed CONSTANT text[] := string_to_array(current_setting('caf.selftest_allowed'), ',');
    attempt record;
    outcome text;
    reason text;
BEGIN
    PERFORM set_config('search_path', 'pg_catalog', true);
    PERFORM set_config('lock_timeout', '1s', true);
    FOR attempt IN
        WITH subject AS (
            SELECT class.oid, class.relname::text AS name, format('public.%I', class.relname) AS label
            FROM pg_class AS class
            WHERE class.relnamespace = 'public'::regnamespace AND class.relkind IN ('r', 'p')
        )
        -- Without a column in it, a statement is refused only where the privilege is missing on each column.
        SELECT label AS target, privilege, format(command, label) AS command,
               CASE WHEN name || ':' || privilege = ANY (allowed) THEN '00000' ELSE '42501' END AS expected,
               privilege = 'TRUNCATE' AND has_table_privilege(oid, 'TRUNCATE') AS would_lock
        FROM subject, (VALUES ('SELECT', 'SELECT FROM %s LIMIT 0'),
                              ('INSERT', 'INSERT INTO %s SELECT WHERE false'),
                              ('DELETE', 'DELETE FROM %s WHERE false'),
                              ('TRUNCATE', 'TRUNCATE %s')) AS list (privilege, command)
        UNION ALL
        -- An UPDATE must name a column. An entry for the whole table leaves open which columns are granted.
        SELECT format('%s(%I)', label, attribute.attname), 'UPDATE',
               format('UPDATE %s SET %I = NULL WHERE false', label, attribute.attname),
               CASE WHEN format('%s(%s):UPDATE', name, attribute.attname) = ANY (allowed) THEN '00000'
                    ELSE '42501' END,
               false
        FROM subject
        JOIN pg_attribute AS attribute ON attribute.attrelid = subject.oid
        WHERE attribute.attnum > 0 AND NOT attribute.attisdropped
              AND attribute.attgenerated = '' AND attribute.attidentity = ''
              AND (name || ':UPDATE' = ANY (allowed)) IS NOT TRUE
        UNION ALL
        SELECT target, 'CREATE', command, '42501', false
        FROM (VALUES ('schema public', 'CREATE TABLE public.caf_selftest ()'),
                     ('temporary tables', 'CREATE TEMPORARY TABLE caf_selftest ()'),
                     ('database', 'CREATE SCHEMA caf_selftest')) AS list (target, command)
    LOOP
        -- TRUNCATE asks for its lock after its privilege: where it would not be refused, a busy table would wait for us.
        IF attempt.would_lock AND attempt.expected = '42501' THEN
            RAISE EXCEPTION 'self-test: % on % is granted; not tried, because it would lock the table',
                attempt.privilege, attempt.target USING ERRCODE = 'P0001';
        END IF;
        CONTINUE WHEN attempt.would_lock;
        BEGIN
            EXECUTE attempt.command;
            RAISE EXCEPTION USING ERRCODE = 'CAF00', MESSAGE = 'nothing stopped it';
        EXCEPTION WHEN OTHERS THEN
            outcome := CASE SQLSTATE WHEN 'CAF00' THEN '00000' ELSE SQLSTATE END;
            reason := SQLERRM;
        END;
        IF outcome <> attempt.expected THEN
            RAISE EXCEPTION 'self-test: % on % ended with SQLSTATE % and must end with %: %',
                attempt.privilege, attempt.target, outcome, attempt.expected, reason
                USING ERRCODE = CASE outcome WHEN '00000' THEN 'P0001' ELSE outcome END;
        END IF;
    END LOOP;
END
$selftest$;
