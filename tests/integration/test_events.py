"""GET /v1/security/events: who reads what, filters, pages (contract, Routes and Security events)."""

import datetime
import uuid

import pytest
from harness import EVENT_MEMBERS, TIME, check_error, unique, wait_for
from psycopg2.extras import execute_values

EVENTS = "/v1/security/events"


class Filled:
    """A tenant with a known history: registrations, and among them drifts and hostname changes."""

    def __init__(self, stack):
        self.stack = stack
        self.tenant = unique("tenant")
        self.one, self.two = stack.agent(tenant=self.tenant), stack.agent(tenant=self.tenant)
        self.traces = [self.step(number) for number in range(12)]
        wait_for(lambda: len(self.identity_events()) == 12 + 10 + 10, what="every event")
        self.auditor = stack.operator("auditor", self.tenant)

    def step(self, number):
        agent = (self.one, self.two)[number % 2]
        answer = agent.register(hostname=f"host-{number}", machine_id_fingerprint=f"fp-{number}")
        return answer.json()["trace_id"]

    def identity_events(self):
        return [e for e in self.stack.events(self.tenant) if e["event_type"].startswith("identity.")]

    def get(self, **query):
        answer = self.auditor.get(EVENTS, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"events", "next_cursor", "count"}
        assert page["count"] == len(page["events"])
        return page

    def all(self, **query):
        """Every event that the filters choose, over as many pages as it takes."""
        page = self.get(**query)
        events = page["events"]
        while page["next_cursor"] is not None:
            page = self.get(**query, cursor=page["next_cursor"])
            events += page["events"]
        return events


@pytest.fixture(scope="module")
def filled(stack):
    return Filled(stack)


def ids(events):
    return [str(event["event_id"]) for event in events]


def test_an_event_has_the_columns(stack, filled):
    event = filled.get(type="identity.fingerprint_drift", limit=1)["events"][0]
    assert set(event) == EVENT_MEMBERS
    assert event["tenant_id"] == filled.tenant
    assert event["event_type"] == "identity.fingerprint_drift"
    assert event["severity"] == "warn"
    assert event["spiffe_id"] == filled.two.spiffe_id
    assert event["hostname"] == "host-11"
    assert event["source_ip"] == "127.0.0.1"
    assert event["trace_id"] == filled.traces[-1]
    assert {"fp-9", "fp-11"} <= set(event["details"].values())
    assert event["count"] == 1
    assert TIME.fullmatch(event["occurred_at"]) and TIME.fullmatch(event["recorded_at"])
    assert event["occurred_at"] <= event["recorded_at"]
    assert event["node"] == stack.env["CAF_NODE"]


def test_newest_first(filled):
    events = filled.all(type="identity.*")
    times = [event["occurred_at"] for event in events]
    assert times == sorted(times, reverse=True)
    assert [e["trace_id"] for e in events if e["event_type"] == "identity.enrollment_success"] == filled.traces[::-1]


@pytest.mark.parametrize("limit", [1, 3, 32, 1000])
def test_pages_hold_everything_once(filled, limit):
    stored = ids(filled.identity_events())
    paged = ids(filled.all(type="identity.*", limit=limit))
    assert len(paged) == len(set(paged)) == 32
    assert sorted(paged) == sorted(stored)


def test_a_page_is_as_long_as_asked(filled):
    page = filled.get(type="identity.*", limit=5)
    assert page["count"] == 5 and isinstance(page["next_cursor"], str)
    assert filled.get(type="identity.*", limit=32)["next_cursor"] is None


def test_a_cursor_keeps_its_place_when_events_come(stack):
    tenant = unique("tenant")
    agent, auditor = stack.agent(tenant=tenant), stack.operator("auditor", tenant)
    for _ in range(4):
        agent.register()
    wait_for(lambda: len(stack.events(tenant, event_type="identity.enrollment_success")) == 4)
    query = {"type": "identity.*", "limit": 2}
    first = auditor.get(EVENTS, params=query).json()
    agent.register()
    wait_for(lambda: len(stack.events(tenant, event_type="identity.enrollment_success")) == 5)
    second = auditor.get(EVENTS, params={**query, "cursor": first["next_cursor"]}).json()
    assert not set(ids(first["events"])) & set(ids(second["events"])) and second["count"] == 2


FILTERS = {
    "type": ({"type": "identity.hostname_changed"}, lambda f, e: e["event_type"] == "identity.hostname_changed"),
    "prefix": ({"type": "identity.h*"}, lambda f, e: e["event_type"].startswith("identity.h")),
    "severity": ({"type": "identity.*", "severity": "warn"}, lambda f, e: e["severity"] == "warn"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_chooses(filled, name):
    query, chosen = FILTERS[name]
    expected = [str(e["event_id"]) for e in filled.identity_events() if chosen(filled, e)]
    assert len(expected) in (10, 20)
    assert sorted(ids(filled.all(**query))) == sorted(expected)


def test_the_identity_filter(filled):
    events = filled.all(type="identity.*", spiffe_id=filled.one.spiffe_id)
    assert len(events) == 16 and {e["spiffe_id"] for e in events} == {filled.one.spiffe_id}
    assert filled.all(spiffe_id=filled.one.spiffe_id + "x") == []


def test_a_type_without_a_star_is_no_prefix(filled):
    assert filled.all(type="identity.") == [] and filled.all(type="identity") == []


def test_wild_characters_are_plain(filled):
    assert filled.all(type="identity%") == [] and filled.all(type="identity_h*") == []


def test_since_is_inclusive_and_until_exclusive(filled):
    events = filled.all(type="identity.*")
    moment = events[len(events) // 2]["occurred_at"]
    since, until = filled.all(type="identity.*", since=moment), filled.all(type="identity.*", until=moment)
    assert ids(since) == ids(e for e in events if e["occurred_at"] >= moment)
    assert ids(until) == ids(e for e in events if e["occurred_at"] < moment)
    assert since and until


def test_since_and_until_together(filled):
    events = filled.all(type="identity.*")
    first, last = events[-1]["occurred_at"], events[0]["occurred_at"]
    assert ids(filled.all(type="identity.*", since=first, until=last)) == ids(
        e for e in events if first <= e["occurred_at"] < last)


@pytest.mark.parametrize("query", [
    {"limit": "0"}, {"limit": "1001"}, {"limit": "-1"}, {"limit": "ten"}, {"limit": ""}, {"limit": "1e1"},
    {"limit": "99999999999999999999"}, {"since": "yesterday"}, {"since": "2024-13-01T00:00:00.000Z"},
    {"until": "2024-02-30T00:00:00.000Z"}, {"until": "1700000000"}, {"severity": "loud"}, {"cursor": "x"},
    {"cursor": "AAAA"}, {"type": "t" * 65}, {"spiffe_id": "s" * 2049},
], ids=lambda q: f"{list(q)[0]}={list(q.values())[0][:20]}")
def test_a_wrong_query_parameter_is_named(filled, query):
    check_error(filled.auditor.get(EVENTS, params=query), 400, "VALIDATION", names=list(query)[0])


class History:
    """A tenant's events as rows: of every type and severity, two identities, over three years, many at one moment."""

    TYPES = {"auth.mtls_success": "info", "auth.mtls_failure": "warn", "identity.revoked": "critical",
             "identity.split_brain": "error", "identityx": "info", "": "info", "\u00e9\U0010ffff": "warn"}

    def __init__(self, stack):
        self.tenant = unique("history")
        types, start = list(self.TYPES), datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
        self.rows = [{
            "event_id": str(uuid.UUID(int=7919 * (i + 1) % 1009 + 2**64 * i)), "event_type": types[i % 7],
            "severity": "error" if i == 350 else self.TYPES[types[i % 7]],
            "spiffe_id": None if i % 11 == 0 else f"spiffe://td/agent/{'quiet' if i % 50 == 7 else 'loud'}",
            "occurred_at": start + datetime.timedelta(days=i // 8 * 8 * 1.1, microseconds=i // 8),
        } for i in range(980)]
        with stack.db() as link, link.cursor() as cursor:
            for tenant in (self.tenant, unique("history")):
                execute_values(cursor, "INSERT INTO security_events (tenant_id, event_id, event_type, severity, "
                               "spiffe_id, occurred_at) VALUES %s", [(tenant, *row.values()) for row in self.rows])
        self.rows.sort(key=lambda row: (row["occurred_at"], row["event_id"]), reverse=True)
        self.auditor = stack.operator("auditor", self.tenant)

    get, all = Filled.get, Filled.all

    def found(self, **query):
        """The ids of the rows that the filters choose, without what is noted of the auditor's own handshakes."""
        known = {row["event_id"] for row in self.rows}
        return [each for each in ids(self.all(**query)) if each in known]

    def expected(self, chosen):
        return [row["event_id"] for row in self.rows if chosen(row)]


@pytest.fixture(scope="module")
def history(stack):
    return History(stack)


def when(row):
    return row["occurred_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")


MIDDLE = "2025-03-04T00:00:00.000Z"
CHOICES = {
    "all": ({}, lambda e: True),
    **{s: ({"severity": s}, lambda e, s=s: e["severity"] == s) for s in ("info", "warn", "error", "critical")},
    **{f"type {t!a}": ({"type": t}, lambda e, t=t: e["event_type"] == t) for t in History.TYPES if t},
    "prefix": ({"type": "identity.*"}, lambda e: e["event_type"].startswith("identity.")),
    "shorter prefix": ({"type": "identity*"}, lambda e: e["event_type"].startswith("identity")),
    "any type": ({"type": "*"}, lambda e: True),
    "last in the order of bytes": ({"type": "\u00e9*"}, lambda e: e["event_type"].startswith("\u00e9")),
    "quiet": ({"spiffe_id": "spiffe://td/agent/quiet"}, lambda e: e["spiffe_id"] == "spiffe://td/agent/quiet"),
    "loud": ({"spiffe_id": "spiffe://td/agent/loud"}, lambda e: e["spiffe_id"] == "spiffe://td/agent/loud"),
    "since": ({"since": MIDDLE}, lambda e: when(e) >= MIDDLE), "until": ({"until": MIDDLE}, lambda e: when(e) < MIDDLE),
    "an odd severity": ({"type": "auth.mtls_success", "severity": "error"},
                        lambda e: (e["event_type"], e["severity"]) == ("auth.mtls_success", "error")),
    "together": ({"type": "auth.*", "severity": "warn", "spiffe_id": "spiffe://td/agent/loud", "until": MIDDLE,
                  "since": "2024-03-04T00:00:00.000Z"},
                 lambda e: (e["event_type"], e["spiffe_id"]) == ("auth.mtls_failure", "spiffe://td/agent/loud")
                 and "2024-03-04T00:00:00.000Z" <= when(e) < MIDDLE),
    "nothing": ({"type": "identity.revoked", "severity": "info"}, lambda e: False),
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("limit", [7, 1000])
def test_filters_and_pages_over_years(history, name, limit):
    query, chosen = CHOICES[name]
    expected = history.expected(chosen)
    assert expected or name == "nothing"
    assert history.found(**query, limit=limit) == expected


def test_the_edges_of_since_and_until(history):
    """To the millisecond, which is what can be said; the events of one are on one side together."""
    row = history.rows[500]
    later = (row["occurred_at"] + datetime.timedelta(milliseconds=1)).isoformat(timespec="milliseconds")
    at_once = history.expected(lambda e: when(e) == when(row))
    for query in ({}, {"type": "*"}):
        assert history.found(**query, since=when(row), until=later) == at_once
        assert not set(history.found(**query, until=when(row))) & set(at_once)
        assert history.get(**query, since=when(row), until=when(row))["events"] == []


def test_a_page_holds_a_hundred_unless_asked(history):
    assert history.get()["count"] == history.get(severity="info")["count"] == 100


def test_a_page_ends_at_its_bytes(stack):
    tenant = unique("heavy")
    with stack.db() as link, link.cursor() as cursor:
        cursor.execute("INSERT INTO security_events (tenant_id, event_id, event_type, severity, details, occurred_at) "
                       "SELECT %s, gen_random_uuid(), 'auth.mtls_failure', 'warn', "
                       "jsonb_build_object('a', repeat('x', 4000)), now() - n * interval '1 s' FROM generate_series(1, 300) AS n", (tenant,))
    auditor = stack.operator("auditor", tenant)
    for query in ({"type": "auth.mtls_failure"}, {"severity": "warn"}):  # the auditor's own handshake is an event too
        query["limit"] = 1000
        answers = [auditor.get(EVENTS, params=query)]
        while cursor := answers[-1].json()["next_cursor"]:
            answers.append(auditor.get(EVENTS, params={**query, "cursor": cursor}))
        assert len(answers) == 3
        assert all(512 * 1024 - 5000 < len(answer.content) < 512 * 1024 + 1000 for answer in answers[:-1])
        found = [event for answer in answers for event in ids(answer.json()["events"])]
        assert len(found) == len(set(found)) == 300


def test_a_cursor_of_any_other_form_is_refused(history):
    cursor = history.get(limit=1)["next_cursor"]
    number, _, name = cursor.partition("-")
    for wrong in (number, f"-{name}", f"{number}-", f"{number}-{name[:-1]}", f"{number}-{name}0", f"x{cursor}",
                  f"{number}-{name[:-1]}g", f"{'9' * 19}-{name}", name):
        check_error(history.auditor.get(EVENTS, params={"cursor": wrong}), 400, "VALIDATION", names="cursor")


def test_tenants_are_apart(stack, filled):
    tenant = unique("tenant")
    stack.agent(tenant=tenant).register()
    wait_for(lambda: stack.events(tenant, event_type="identity.enrollment_success"))
    other = stack.operator("admin", tenant)
    events = other.get(EVENTS, params={"limit": 1000}).json()["events"]
    assert {event["tenant_id"] for event in events} == {tenant}
    found = other.get(EVENTS, params={"spiffe_id": filled.one.spiffe_id}).json()
    assert found["events"] == []


def test_another_tenants_cursor_shows_nothing_of_it(stack, filled):
    cursor = filled.get(limit=1)["next_cursor"]
    answer = stack.operator("auditor", unique("tenant")).get(EVENTS, params={"cursor": cursor})
    assert answer.status_code in (200, 400)
    assert not set(ids(answer.json().get("events", []))) & set(ids(filled.all()))


@pytest.mark.parametrize("role", ["auditor", "developer", "operator", "admin", "admin-night"])
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_every_reader_may_read(stack, filled, role, prefix):
    answer = stack.operator(role, filled.tenant).get(f"{prefix}/security/events", params={"type": "identity.*"})
    assert answer.status_code == 200 and answer.json()["count"] == 32


def test_who_may_not_read(stack, filled):
    check_error(filled.one.client.get(EVENTS), 403, "FORBIDDEN")
    check_error(stack.operator("janitor", filled.tenant).get(EVENTS), 403, "FORBIDDEN")
    check_error(stack.client().get(EVENTS), 401, "UNAUTHORIZED")


def test_the_system_tenant_has_readers(stack):
    assert stack.operator("auditor", "_system").get(EVENTS).status_code == 200


def test_the_time_is_the_requests(stack):
    agent = stack.agent()
    before = datetime.datetime.now(datetime.timezone.utc)
    trace = agent.register().json()["trace_id"]
    after = datetime.datetime.now(datetime.timezone.utc)
    event = wait_for(lambda: stack.events("acme", trace_id=trace))[0]
    slack = datetime.timedelta(milliseconds=2)
    assert before - slack <= event["occurred_at"] <= after + slack
