"""Statements of two nodes that meet on the same agents lock them in one order, that of their batches, whatever the plan
and the database's language: where two orders meet, each waits for the other."""

import threading

import pytest
from databases import SUPERUSER, Database, statements
from harness import REPOSITORY, unique, wait_for

TENANT, MIDDLE = "t", "m"
# In the order of bytes, as pg_batch.c sorts a batch. A language has m first; the table holds them the other way round.
BEFORE, AFTER = [f"Z{n:02}" for n in range(10)], [f"z{n:02}" for n in range(10)]
NAMES = [*BEFORE, MIDDLE, *AFTER]
REGISTERED, DEREGISTERED = ([f"00000000-0000-8000-8000-{request}{n:010}" for n in range(len(NAMES))] for request in (10, 20))
# What a batch says beside the ordinal, tenant_id and spiffe_id of each agent, the same for all but where it is a list.
BATCHES = {
    "register": [NAMES, REGISTERED, "h", "f", None, None, None, None, "192.0.2.1", None,
                 "0123456789abcdef", "1000", "n", "35", "600"],
    "write_heartbeat": ["1000", None, None, None],
    "deregister": [DEREGISTERED, "192.0.2.1", None, "0123456789abcdef", "1000", "n"],
}


@pytest.fixture(scope="module")
def spoken(stack):
    """A migrated database whose texts are in a language's order, with a few hundred agents, so that no plan is forced."""
    server, name = Database(stack, stack.env["PGDATABASE"]), unique("spoken").replace("-", "_")
    server.rows(f"CREATE DATABASE {name} OWNER {stack.env['PGUSER']} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'",
                role=SUPERUSER)
    made = Database(stack, name)
    made.migrate()
    made.rows("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, state) "
              "SELECT %s, name, name, 'h', 'active' FROM unnest(%s) AS name", TENANT,
              [*reversed(NAMES), *(f"other-{n}" for n in range(80))])
    made.rows("ANALYZE agent_registry")
    yield made
    server.rows(f"DROP DATABASE {name} WITH (FORCE)", role=SUPERUSER)


def array(said):
    values = said if isinstance(said, list) else [said] * len(NAMES)
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


def execute(database, name):
    batch = [array(said) for said in ([*range(len(NAMES))], TENANT, NAMES, *BATCHES[name])]
    with database.session("caf_registry") as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("PREPARE batch AS " + statements(REPOSITORY / "sql", "registryd.sql")[name])
        cursor.execute(f"EXECUTE batch ({', '.join(['%s'] * len(batch))})", batch)


@pytest.mark.parametrize("name", BATCHES)
def test_rows_are_locked_in_the_order_of_the_batch(spoken, name):
    batch = threading.Thread(target=execute, args=(spoken, name))
    with spoken.session() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM agent_registry WHERE agent_id = %s FOR UPDATE", (MIDDLE,))
        batch.start()
        wait_for(lambda: spoken.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                                      "AND usename = 'caf_registry' AND wait_event_type = 'Lock'", role=SUPERUSER))
        free = {agent for agent, in spoken.rows("SELECT agent_id FROM agent_registry FOR UPDATE SKIP LOCKED")}
        holder.execute("COMMIT")
    batch.join()
    assert [agent for agent in NAMES if agent not in free] == [*BEFORE, MIDDLE]
