"""cafctl migrate: every file once, each whole or not at all, whoever else runs at the same time."""

import hashlib
import os
import re
import subprocess
import time

import pytest
from databases import SUPERUSER, last_version, migration_files, temporary_database
from harness import wait_for


def test_migrate_applies_every_file_once_and_records_it(database):
    printed = database.migrate()
    files = migration_files(database.sql)
    assert [file.stem for file in files][:5] == ["048_base", "049_god_mode_executions", "050_agent_registry_upsert_key",
                                                 "051_partitions", "052_identity"]
    recorded = database.rows("SELECT version, name, checksum, applied_by FROM schema_migrations ORDER BY version")
    assert recorded == [(int(file.name[:3]), file.stem, hashlib.sha256(file.read_bytes()).hexdigest(),
                         database.stack.env["PGUSER"]) for file in files]
    assert re.findall(r"^applied (\S+)$", printed, re.M) == [*(file.stem for file in files), "grants"]


def dump(database):
    return subprocess.run(["pg_dump", "--restrict-key=caf"] if pg_dump_has_restrict_key() else ["pg_dump"],
                          env=database.env(), capture_output=True, text=True, check=True).stdout


def pg_dump_has_restrict_key():
    return "--restrict-key" in subprocess.run(["pg_dump", "--help"], capture_output=True, text=True, check=True).stdout


def test_second_run_does_nothing(database):
    database.migrate()
    before = dump(database)
    printed = database.migrate()
    assert f"up to date at {last_version(database.sql)}" in printed
    assert "applied" not in printed and "made" not in printed
    assert dump(database) == before


def test_conninfo_argument_is_stronger_than_the_environment(database):
    env = {**database.env(), "PGDATABASE": "there_is_no_such_database"}
    done = subprocess.run(database.cafctl(f"dbname={database.name}"), env=env, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert database.versions()[-1] == last_version(database.sql)


def test_check_changes_nothing_and_tells(database):
    printed = database.migrate("--check", code=3)
    assert "pending 048_base" in printed and "pending grants" in printed
    assert database.relations() == set()
    database.migrate("--to", 50)
    printed = database.migrate("--check", code=3)
    assert "050" not in printed and "pending 051_partitions" in printed
    assert database.versions() == [48, 49, 50]
    assert "up to date at 50" in database.migrate("--check", "--to", 50)
    database.migrate()
    assert f"up to date at {last_version(database.sql)}" in database.migrate("--check")


def test_to_stops_there_and_only_goes_forward(database):
    database.migrate("--to", 49)
    assert database.versions() == [48, 49]
    assert not database.value("SELECT bool_or(has_table_privilege('caf_audit', oid, 'SELECT')) FROM pg_class "
                              "WHERE relname = 'god_mode_executions' AND to_regrole('caf_audit') IS NOT NULL")
    database.migrate("--to", 51)
    assert "only go forward" in database.migrate("--to", 50, code=1)
    assert "no migration 47" in database.migrate("--to", 47, code=1)
    assert database.versions() == [48, 49, 50, 51]
    database.migrate()
    assert database.versions()[-1] == last_version(database.sql)


@pytest.mark.parametrize("arguments", [["--to", "x"], ["--to", "0"], ["--bogus"], ["dbname=a", "dbname=b"]])
def test_wrong_usage_is_2(database, arguments):
    database.migrate(*arguments, code=2)


def test_changed_old_file_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    file = database.sql / "migrations" / "049_god_mode_executions.sql"
    applied = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text() + "-- one byte more is another file\n")
    changed = hashlib.sha256(file.read_bytes()).hexdigest()
    database.add_file("900_new.sql", "CREATE TABLE never ();")
    for arguments in ([], ["--check"]):
        printed = database.migrate(*arguments, code=1)
        assert str(file) in printed and applied in printed and changed in printed
    assert "never" not in database.relations()


def test_unknown_version_in_the_database_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_newer.sql", "CREATE TABLE newer ();")
    database.migrate()
    (database.sql / "migrations" / "900_newer.sql").unlink()
    for arguments in ([], ["--check"]):
        assert "900_newer" in database.migrate(*arguments, code=1)


def test_file_before_the_newest_applied_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    database.add_file("047_late.sql", "CREATE TABLE late ();")
    assert "047_late.sql was never applied" in database.migrate(code=1)
    assert "late" not in database.relations()


@pytest.mark.parametrize("name", ["900-dash.sql", "90_short.sql", "900_Upper.sql", "new.sql", "048_twin.sql"])
def test_misnamed_file_is_refused(database, tmp_path, name):
    database.copy_sql(tmp_path)
    database.add_file(name, "SELECT 1;")
    assert name in database.migrate(code=1)
    assert database.relations() == set()


@pytest.mark.parametrize("text, line", [("SELECT 1;\nCOMMIT;", 2), ("-- x\n/* y */ begin;", 2), ("\nROLLBACK", 2),
                                        ("SELECT ';';\n\nSELECT 'open", 3), ("SELECT 1;\nSELECT $x$ ; $y$;", 2)])
def test_file_that_leaves_its_transaction_or_never_ends_is_refused_unrun(database, tmp_path, text, line):
    database.copy_sql(tmp_path)
    database.add_file("900_bad.sql", "CREATE TABLE half ();" + text)
    assert f"900_bad.sql:{line}:" in database.migrate(code=1)
    assert "half" not in database.relations()
    assert 900 not in database.versions()


def test_statements_are_cut_where_postgresql_cuts_them(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_lexer.sql", r"""
        CREATE TABLE lexed (id int, text text);
        INSERT INTO lexed VALUES (1, 'it''s; one'), (2, E'it\'s; ''two'), (3, $$three;$$), (4, $a$ $$; $b$ ; $a$);
        /* a comment; /* nested; */ still; */ INSERT INTO lexed VALUES (5, 'five') -- to the end; of the line
        ;;
        CREATE TABLE "odd;name" (a$b$c int); INSERT INTO "odd;name" VALUES (6);
        DO $do$ BEGIN PERFORM 1; END $do$; INSERT INTO lexed VALUES (6, E'six''\';');
        INSERT INTO lexed VALUES (7, 'ü;')""")
    database.migrate()
    assert database.rows("SELECT * FROM lexed ORDER BY id") == [
        (1, "it's; one"), (2, "it's; 'two"), (3, "three;"), (4, " $$; $b$ ; "), (5, "five"), (6, "six'';"), (7, "ü;")]
    assert database.value('SELECT a$b$c FROM "odd;name"') == 6


def test_what_the_server_says_cannot_forge_a_line(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_loud.sql", r"DO $$ BEGIN RAISE NOTICE E'one\napplied 901_forged\x1b[2J'; "
                                      r"RAISE E'two\ncafctl: forged\r'; END $$;")
    printed = database.migrate(code=1)
    assert "900_loud: NOTICE: one" in printed and "900_loud.sql:1: two" in printed
    assert not re.search(r"[\x1b\r]|^applied 901_forged|^cafctl: forged", printed, re.M)


def test_failing_migration_leaves_nothing(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_good.sql", "CREATE TABLE good (id int PRIMARY KEY);")
    database.add_file("901_bad.sql", "CREATE TABLE bad ();\nINSERT INTO good VALUES (1);\n\nINSERT INTO good\n"
                                     "SELECT 'é', nowhere\nFROM good;\n")
    database.add_file("902_after.sql", "CREATE TABLE after_it ();")
    printed = database.migrate(code=1)
    assert "901_bad.sql:5: column \"nowhere\" does not exist (SQLSTATE 42703)" in printed
    assert database.versions()[-1] == 900
    assert database.rows("SELECT * FROM good") == []
    assert not {"bad", "after_it"} & database.relations()
    database.add_file("901_bad.sql", "INSERT INTO good VALUES (1);\nINSERT INTO good VALUES (1);")
    printed = database.migrate(code=1)
    assert "901_bad.sql:2:" in printed and "23505" in printed and "Key (id)=(1) already exists" in printed
    assert database.rows("SELECT * FROM good") == []


def test_failing_first_migration_leaves_an_empty_database(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("048_base.sql", "CREATE TABLE first (); SELECT 1 / 0;")
    database.migrate(code=1)
    assert database.relations() == set()


def test_lost_connection_leaves_nothing_and_the_next_run_goes_on(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_slow.sql", "CREATE TABLE half (); SELECT pg_sleep(60);")
    running = database.start_migrate()
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query = 'SELECT pg_sleep(60)'"
    pids = wait_for(lambda: database.rows(waiting, database.name))
    database.rows("SELECT pg_terminate_backend(%s)", pids[0][0])
    printed, _ = running.communicate(timeout=30)
    assert running.returncode == 1 and "900_slow.sql:1:" in printed
    assert "half" not in database.relations()
    database.add_file("900_slow.sql", "CREATE TABLE half ();")
    database.migrate()
    assert 900 in database.versions()


def test_two_migrations_at_once_apply_everything_once(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_slow.sql", "SELECT pg_sleep(0.5);")
    running = [database.start_migrate() for _ in range(4)]
    printed = [each.communicate(timeout=60)[0] for each in running]
    assert [each.returncode for each in running] == [0] * 4, printed
    assert sum("applied 048_base" in text for text in printed) == 1
    assert sum("up to date" in text for text in printed) == 3
    assert any("waiting for it" in text for text in printed)
    assert database.versions()[-1] == 900


def test_databases_of_one_cluster_migrate_at_once_and_share_the_roles(stack, tmp_path):
    """The roles do not exist yet: all of them want to create them."""
    prefix = f"caft{os.getpid()}"
    with temporary_database(stack) as one, temporary_database(stack) as two, temporary_database(stack) as three:
        one.copy_sql(tmp_path)
        grants = one.sql / "grants.sql"
        grants.write_text(re.sub(r"\bcaf_(registry|audit|event)\b", prefix + r"_\1", grants.read_text())
                          + "SELECT pg_sleep(0.3);\n")
        databases = [one, two, three]
        for each in databases:
            each.sql = one.sql
        running = [each.start_migrate() for each in databases]
        printed = [each.communicate(timeout=60)[0] for each in running]
        made = one.rows("SELECT rolname FROM pg_roles WHERE rolname LIKE %s ORDER BY 1", prefix + "%")
        for each in databases:
            for (role,) in made:
                each.rows(f"DROP OWNED BY {role}", role=SUPERUSER)
        for (role,) in made:
            one.rows(f"DROP ROLE {role}", role=SUPERUSER)
    assert [each.returncode for each in running] == [0] * 3, printed
    assert [role for role, in made] == [f"{prefix}_{name}" for name in ("audit", "event", "registry")]


def test_migration_gives_up_on_a_busy_table_before_clients_fail(database):
    database.migrate("--to", 50)
    with database.session() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM god_mode_executions")
        begun = time.monotonic()
        printed = database.migrate(code=1)
        assert time.monotonic() - begun < 8
        assert "051_partitions.sql" in printed and "55P03" in printed
    assert database.versions() == [48, 49, 50]
    database.migrate()
