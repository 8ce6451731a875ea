"""GET /v1/mesh/agents and /v1/mesh/agents/{agent_id}: who reads what, filters, pages (contract, Routes)."""

import datetime

import pytest
from harness import AGENT_MEMBERS, check_error, check_registered, request, unique
from psycopg2.extras import Json, execute_values

AGENTS = "/v1/mesh/agents"
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=123456)


def ago(seconds):
    return NOW - datetime.timedelta(seconds=seconds)


def insert(stack, tenant, agents):
    """Rows as registrations leave them; agents: dictionaries of columns, agent_id among them."""
    columns = ("agent_id", "hostname", "machine_id_fingerprint", "state", "last_heartbeat", "metadata")
    rows = [(tenant, stack.agent_id(tenant, a["agent_id"]), a["agent_id"], a.get("hostname", "h"),
             a.get("machine_id_fingerprint"), a.get("state", "active"), a.get("last_heartbeat"),
             Json(a.get("metadata", {}))) for a in agents]
    query = f"INSERT INTO agent_registry (tenant_id, spiffe_id, {', '.join(columns)}) VALUES %s"
    with stack.db() as link, link.cursor() as cursor:
        execute_values(cursor, query, rows)


class Reader:
    """Somebody who may read a tenant's agents."""

    def __init__(self, stack, tenant):
        self.client = stack.operator("auditor", tenant)

    def page(self, **query):
        answer = self.client.get(AGENTS, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"agents", "next_cursor", "count"} | ({"total"} if query.get("total") == "true" else set())
        assert page["count"] == len(page["agents"])
        return page

    def pages(self, **query):
        """Every page that the filters choose."""
        found = [self.page(**query)]
        while found[-1]["next_cursor"] is not None:
            found.append(self.page(**query, cursor=found[-1]["next_cursor"]))
        return found

    def names(self, **query):
        return [agent["agent_id"] for page in self.pages(**query) for agent in page["agents"]]


class Crowd:
    """A tenant with more agents than a page may hold, in every state, many of them heard from at the same moment."""

    STATES = ("active", "active", "active", "quarantined", "revoked", "deregistered", "active")

    def __init__(self, stack):
        self.tenant = unique("crowd")
        self.agents = [{
            "agent_id": f"agent-{i}",
            "hostname": f"host-{i % 40}.example" if i % 3 else "localhost",
            "machine_id_fingerprint": ("golden" if i % 5 == 0 else f"fp-{i}") if i % 11 else None,
            "state": self.STATES[i % 7],
            "last_heartbeat": None if i % 50 == 49 else ago(i // 9 * 10),
        } for i in range(1150)]
        insert(stack, self.tenant, self.agents)
        insert(stack, unique("crowd"), self.agents)  # of another tenant, and the same otherwise
        self.reader = Reader(stack, self.tenant)
        prefix = stack.agent_id(self.tenant, "")
        self.agents.sort(key=lambda a: (a["last_heartbeat"] is not None, a["last_heartbeat"] or 0,
                                        prefix + a["agent_id"]), reverse=True)

    def names(self, chosen=lambda agent: True):
        """In the order of the list."""
        return [a["agent_id"] for a in self.agents if chosen(a)]


@pytest.fixture(scope="module")
def crowd(stack):
    return Crowd(stack)


# ---- the list ------------------------------------------------------------------------------------


def test_a_record_is_the_agents_own(stack):
    tenant = unique("tenant")
    agent = stack.agent(tenant=tenant)
    record = check_registered(agent.register(machine_id_fingerprint="f", endpoint="e", version="1",
                                             capabilities=["c"], metadata={"é": [1, None]}), 201)["agent"]
    reader = Reader(stack, tenant)
    page = reader.page()
    assert page == {"agents": [record], "next_cursor": None, "count": 1}
    assert set(record) == AGENT_MEMBERS
    assert reader.client.get(f"{AGENTS}/{agent.name}").json() == {"agent": record}


def test_no_agents(stack):
    reader = Reader(stack, unique("tenant"))
    assert reader.page() == {"agents": [], "next_cursor": None, "count": 0}
    assert reader.page(total="true") == {"agents": [], "next_cursor": None, "count": 0, "total": 0}


def test_newest_heartbeat_first_and_those_never_heard_from_last(crowd):
    assert crowd.reader.names(limit=1000) == crowd.names()


def test_a_page_holds_a_hundred_unless_asked(crowd):
    assert crowd.reader.page()["count"] == 100
    assert [page["count"] for page in crowd.reader.pages(limit=1000)] == [1000, 150]
    assert crowd.reader.page(limit=1)["count"] == 1


@pytest.mark.parametrize("limit", [1, 7, 9])
def test_pages_that_end_amid_a_tie(crowd, limit):
    """Nine at a time were heard from at the same moment, and those never heard from are all tied."""
    chosen = {"hostname": "localhost", "state": "active"}
    expected = crowd.names(lambda a: a["hostname"] == "localhost" and a["state"] == "active")
    assert len(expected) > 200
    pages = crowd.reader.pages(**chosen, limit=limit)
    assert [a["agent_id"] for page in pages for a in page["agents"]] == expected
    assert all(page["count"] == limit for page in pages[:-1])


FILTERS = {
    "active": ({"state": "active"}, lambda a: a["state"] == "active"),
    "quarantined": ({"state": "quarantined"}, lambda a: a["state"] == "quarantined"),
    "revoked": ({"state": "revoked"}, lambda a: a["state"] == "revoked"),
    "deregistered": ({"state": "deregistered"}, lambda a: a["state"] == "deregistered"),
    "hostname": ({"hostname": "host-7.example"}, lambda a: a["hostname"] == "host-7.example"),
    "canonical": ({"hostname": "HOST-7.Example."}, lambda a: a["hostname"] == "host-7.example"),
    "common": ({"hostname": "localhost"}, lambda a: a["hostname"] == "localhost"),
    "fingerprint": ({"fingerprint": "golden"}, lambda a: a["machine_id_fingerprint"] == "golden"),
    "one": ({"fingerprint": "fp-8"}, lambda a: a["machine_id_fingerprint"] == "fp-8"),
    "never": ({"stale_seconds": 86400}, lambda a: a["last_heartbeat"] is None),
    "stale": ({"stale_seconds": 605}, lambda a: not a["last_heartbeat"] or a["last_heartbeat"] < ago(600)),
    "all": ({"stale_seconds": 0}, lambda a: True),
    "together": ({"state": "active", "hostname": "localhost", "fingerprint": "golden", "stale_seconds": 305},
                 lambda a: (a["state"], a["hostname"], a["machine_id_fingerprint"]) == ("active", "localhost", "golden")
                 and (not a["last_heartbeat"] or a["last_heartbeat"] < ago(300))),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("limit", [40, 1000])
def test_a_filter_chooses_these_and_no_others(crowd, name, limit):
    query, chosen = FILTERS[name]
    expected = crowd.names(chosen)
    assert expected
    # What is stale grows while this runs: ages are steps of ten seconds, the filter's bounds in the midst of one.
    assert (datetime.datetime.now(datetime.timezone.utc) - NOW).total_seconds() < 300
    if "stale_seconds" in query and query["stale_seconds"]:
        elapsed = int((datetime.datetime.now(datetime.timezone.utc) - NOW).total_seconds())
        query = {**query, "stale_seconds": query["stale_seconds"] + elapsed}
    pages = crowd.reader.pages(**query, limit=limit, total="true")
    assert [a["agent_id"] for page in pages for a in page["agents"]] == expected
    assert {page["total"] for page in pages} == {len(expected)}


@pytest.mark.parametrize("query", [
    {"hostname": "host-7"}, {"hostname": "nowhere.example"}, {"fingerprint": "GOLDEN"}, {"fingerprint": "gold"},
    {"fingerprint": "%"}, {"state": "revoked", "fingerprint": "fp-8"}, {"stale_seconds": 1000000000, "state": "revoked",
                                                                        "hostname": "host-7.example"},
], ids=str)
def test_a_filter_that_nobody_matches(crowd, query):
    if "stale_seconds" in query:
        expected = crowd.names(lambda a: a["state"] == "revoked" and a["hostname"] == "host-7.example"
                               and a["last_heartbeat"] is None)
        assert crowd.reader.names(**query) == expected
    else:
        assert crowd.reader.page(**query, total="true") == {"agents": [], "next_cursor": None, "count": 0, "total": 0}


def test_the_total_is_of_the_whole_list_on_every_page(crowd):
    first = crowd.reader.page(total="true", limit=1000)
    second = crowd.reader.page(total="true", limit=1000, cursor=first["next_cursor"])
    assert (first["total"], second["total"]) == (1150, 1150)
    assert "total" not in crowd.reader.page(total="false")


def test_the_total_of_an_empty_page(stack):
    tenant = unique("tenant")
    insert(stack, tenant, [{"agent_id": name, "last_heartbeat": ago(10)} for name in ("a", "b", "c")])
    reader = Reader(stack, tenant)
    cursor = reader.page(limit=2)["next_cursor"]
    with stack.db() as link, link.cursor() as own:
        own.execute("UPDATE agent_registry SET last_heartbeat = now() WHERE tenant_id = %s", (tenant,))
    assert reader.page(cursor=cursor, total="true") == {"agents": [], "next_cursor": None, "count": 0, "total": 3}


@pytest.mark.parametrize("query", [
    {"limit": "0"}, {"limit": "1001"}, {"limit": "-1"}, {"limit": "ten"}, {"limit": ""}, {"state": "gone"},
    {"state": "Active"}, {"state": "unknown"}, {"state": ""}, {"hostname": "a_b"}, {"hostname": ""},
    {"hostname": "a." * 127 + "a"}, {"hostname": "a b"}, {"stale_seconds": "-1"}, {"stale_seconds": "x"},
    {"stale_seconds": "1000000001"}, {"fingerprint": ""}, {"fingerprint": "f" * 257}, {"total": "1"}, {"total": "yes"},
    {"total": ""}, {"cursor": ""}, {"cursor": "x"}, {"cursor": "12"}, {"cursor": "12-"}, {"cursor": "-"},
    {"cursor": "1x-spiffe://td/a"}, {"cursor": "c" * 4097}, {"tenant_id": "acme"}, {"agent_id": "a"}, {"Limit": "1"},
], ids=lambda q: f"{list(q)[0]}={list(q.values())[0][:20]}")
def test_a_wrong_query_parameter_is_named(crowd, query):
    check_error(crowd.reader.client.get(AGENTS, params=query), 400, "VALIDATION", names=list(query)[0])


def test_the_choices_are_said(crowd):
    message = check_error(crowd.reader.client.get(AGENTS, params={"state": "gone"}), 400, "VALIDATION")
    assert all(state in message for state in ("active", "quarantined", "revoked", "deregistered"))


# ---- pages ---------------------------------------------------------------------------------------


def test_a_page_ends_at_its_bytes(stack):
    """With 4 KiB of metadata each, a page of 512 KiB is full before its limit, and no agent gets lost for it."""
    tenant = unique("heavy")
    insert(stack, tenant, [{"agent_id": f"agent-{i}", "last_heartbeat": ago(i), "metadata": {"a": "x" * 4088}}
                           for i in range(300)])
    answers, query = [], {"limit": 1000}
    reader = Reader(stack, tenant)
    while "cursor" not in query or query["cursor"] is not None:
        answers.append(reader.client.get(AGENTS, params=query))
        query["cursor"] = answers[-1].json()["next_cursor"]
    assert len(answers) == 3
    for answer in answers[:-1]:
        assert 512 * 1024 - 5000 < len(answer.content) < 512 * 1024 + 1000
    names = [agent["agent_id"] for answer in answers for agent in answer.json()["agents"]]
    assert names == [f"agent-{i}" for i in range(300)]


def test_pages_while_agents_beat_come_and_go(stack):
    """Who did not change between two pages is on exactly one of them."""
    tenant = unique("tenant")
    insert(stack, tenant, [{"agent_id": f"agent-{i:03}", "last_heartbeat": ago(i // 3)} for i in range(120)])
    reader, pages, changed = Reader(stack, tenant), [], set()
    page = reader.page(limit=15)
    with stack.db() as link, link.cursor() as cursor:
        while True:
            pages.append(page)
            number = len(pages)
            moved = [f"agent-{i:03}" for i in range(number, 120, 13)]
            cursor.execute("UPDATE agent_registry SET last_heartbeat = now() "
                           "WHERE tenant_id = %s AND agent_id = ANY (%s)", (tenant, moved))
            gone = f"agent-{119 - number:03}"
            cursor.execute("UPDATE agent_registry SET state = 'deregistered' WHERE tenant_id = %s AND agent_id = %s",
                           (tenant, gone))
            changed |= {*moved, gone}
            insert(stack, tenant, [{"agent_id": f"new-{number}", "last_heartbeat": ago(-number)}])
            if page["next_cursor"] is None:
                break
            page = reader.page(limit=15, cursor=page["next_cursor"])
    names = [agent["agent_id"] for each in pages for agent in each["agents"]]
    assert len(names) == len(set(names))
    assert {f"agent-{i:03}" for i in range(120)} - changed <= set(names)
    assert len(changed) < 90 and len(pages) > 4


def test_text_of_before_is_escaped(stack):
    """A row that no registration of ours can have written: its cursor is JSON all the same."""
    tenant = unique("tenant")
    odd = 'spiffe://td/"\\\n'
    with stack.db() as link, link.cursor() as cursor:
        cursor.execute("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, last_heartbeat) "
                       "VALUES (%s, %s, 'odd', 'h', %s), (%s, 'spiffe://td/a', 'even', 'h', %s)",
                       (tenant, odd, ago(1), tenant, ago(2)))
    first = Reader(stack, tenant).page(limit=1)
    assert first["agents"][0]["spiffe_id"] == odd and first["next_cursor"].endswith(odd)
    assert Reader(stack, tenant).names(limit=1) == ["odd", "even"]


# ---- one agent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["active", "quarantined", "revoked", "deregistered"])
def test_an_agent_of_any_state_can_be_read(stack, state):
    tenant = unique("tenant")
    insert(stack, tenant, [{"agent_id": "agent-1", "state": state}])
    answer = Reader(stack, tenant).client.get(f"/api{AGENTS}/agent-1")
    assert answer.status_code == 200
    assert answer.json()["agent"]["state"] == state and answer.json()["agent"]["last_heartbeat"] is None


@pytest.mark.parametrize("name", ["agent-1150", "AGENT-1", "agent-1%20", "%61gent-1", "a" * 255, "a" * 256, "a" * 4000,
                                  "agent-1;x", "'"])
def test_an_agent_that_is_not_there(crowd, name):
    check_error(crowd.reader.client.get(f"{AGENTS}/{name}"), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", [f"{AGENTS}/", f"{AGENTS}/agent-1/", f"{AGENTS}/agent-1/x", f"{AGENTS}//agent-1",
                                  f"{AGENTS}/..", "/v1/mesh/{agent_id}"])
def test_paths_are_compared_as_bytes(stack, crowd, path):
    crt, key = stack.cert(stack.operator_id(crowd.tenant, "auditor"))
    answer = stack.connection(crt, key).ask(request("GET", path))
    check_error(answer, 404, "NOT_FOUND")


def test_another_method_on_a_path_with_a_name(crowd):
    for path in (f"{AGENTS}/agent-1", AGENTS, f"{AGENTS}/nobody"):
        answer = crowd.reader.client.post(path, json={})
        check_error(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "GET"


# ---- who may read --------------------------------------------------------------------------------


def test_tenants_are_apart(stack, crowd):
    other = Reader(stack, unique("tenant"))
    assert other.page(hostname="localhost", total="true")["total"] == 0
    check_error(other.client.get(f"{AGENTS}/agent-1"), 404, "NOT_FOUND")
    assert other.names(cursor=crowd.reader.page(limit=1)["next_cursor"]) == []


@pytest.mark.parametrize("role", ["auditor", "developer", "operator", "admin"])
def test_every_reader_may_read(stack, crowd, role):
    client = stack.operator(role, crowd.tenant)
    assert client.get(AGENTS).json()["count"] == 100
    assert client.get(f"{AGENTS}/agent-1").status_code == 200


@pytest.mark.parametrize("path", [AGENTS, f"{AGENTS}/agent-1"])
def test_who_may_not_read(stack, crowd, path):
    agent = stack.agent("agent-1", crowd.tenant)
    check_error(agent.client.get(path), 403, "FORBIDDEN")
    check_error(stack.operator("janitor", crowd.tenant).get(path), 403, "FORBIDDEN")
    check_error(stack.client().get(path), 401, "UNAUTHORIZED")
