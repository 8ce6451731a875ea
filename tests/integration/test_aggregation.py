"""auth.* under flood: repeats are rows with a count, bounded, and the counts add up exactly, whoever dies or is away
(contract, Listening and identity; docs/ARCHITECTURE.md, Handshakes, counted).

A client that saw its handshake's end, an answer or a refusal, has been counted. One that was cut before it knows nothing,
and may have been counted or not."""

import collections
import concurrent.futures
import os
import signal
import socket
import ssl
import threading
import time

import pytest
from caf_dev.authority import Issuer, uri
from harness import FAST, Stack, unique, wait_for

SUCCESS, FAILURE = "auth.mtls_success", "auth.mtls_failure"
CUT = "cut"
ADDRESSES = [f"127.0.0.{last}" for last in range(2, 8)]
QUESTION = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ALERTS = ("TLSV1_ALERT_UNKNOWN_CA", "UNKNOWN_CA")


@pytest.fixture(scope="module")
def own():
    """A stack of this file's own, with three workers, that listens on IPv4 and IPv6."""
    made = Stack("--workers", "3", sets=(*FAST, "frontd.listen.address=::")).up()
    yield made
    made.close()


def handshake(stack, context, source):
    """One handshake and a question behind it: SUCCESS, FAILURE, or CUT where the client saw neither."""
    host = "::1" if source == "::1" else "127.0.0.1"
    try:
        with socket.create_connection((host, stack.port), timeout=20, source_address=(source, 0)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(QUESTION)
                return SUCCESS if tls.recv(65536).startswith(b"HTTP/1.1 200") else CUT
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return CUT
    except ssl.SSLError as error:
        assert error.reason in ALERTS, error
        return FAILURE
    except OSError:
        return CUT


def accepted_cases(stack, tenant, count=5):
    """An identity each, from different addresses."""
    agents = [stack.agent(tenant=tenant) for _ in range(count)]
    return [(stack.context(agent.crt, agent.key), address) for agent in agents for address in ADDRESSES[:2]]


def refused_cases(stack, sources):
    """One certificate that nobody trusts, from each of these addresses."""
    claim = uri(stack.agent_id("acme", "nobody"))
    context = stack.context(*stack.cert("", issuer=Issuer.root("somebody"), names=[claim]))
    return [(context, source) for source in sources]


def run(stack, cases, count):
    """So many handshakes, one after the other; how they ended."""
    return collections.Counter(handshake(stack, *cases[number % len(cases)]) for number in range(count))


class Flood:
    """Clients that shake hands until they are stopped."""

    def __init__(self, stack, cases, clients=6):
        self.stack, self.cases = stack, cases
        self.stopped, self.done, self.cut = threading.Event(), 0, 0
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.running = [self.pool.submit(self.run, number) for number in range(clients)]

    def run(self, number):
        seen = collections.Counter()
        while not self.stopped.is_set():
            how = handshake(self.stack, *self.cases[number % len(self.cases)])
            seen[how] += 1
            self.cut += how == CUT
            number += 7
            self.done += 1
        return seen

    def wait(self, more):
        """Until about so many more handshakes have ended."""
        target = self.done + more
        wait_for(lambda: self.done >= target, seconds=120, what=f"{more} handshakes")

    def stop(self):
        """How they ended."""
        self.stopped.set()
        self.pool.shutdown()
        return sum((each.result() for each in self.running), collections.Counter())


class Ledger:
    """What security_events gains from now on."""

    def __init__(self, stack):
        self.stack = stack
        self.before, self.rows_before = self.sums(), self.row_count()
        self.began = time.monotonic()

    def sums(self):
        rows = self.stack.rows("SELECT event_type, sum(count)::int FROM security_events "
                               "WHERE event_type LIKE 'auth.%%' GROUP BY 1")
        return collections.Counter(dict(rows))

    def row_count(self):
        return self.stack.rows("SELECT count(*) FROM security_events WHERE event_type LIKE 'auth.%%'")[0][0]

    def gained(self):
        return self.sums() - self.before

    def rows(self):
        return self.row_count() - self.rows_before

    def settle(self):
        """What was gained, when it has not grown for two windows."""
        last, since = self.gained(), time.monotonic()
        while time.monotonic() - since < 2.5:
            time.sleep(0.1)
            if (now := self.gained()) != last:
                last, since = now, time.monotonic()
        return last

    def check(self, seen):
        """The counts add up; where a client was cut it may have been counted, as the one or the other."""
        gained = self.settle()
        for kind in (SUCCESS, FAILURE):
            assert seen[kind] <= gained[kind] <= seen[kind] + seen[CUT], (gained, seen)
        assert gained.total() <= seen.total(), (gained, seen)

    def check_bounded(self, buckets):
        """At most a row for each bucket and window of a second, and one for what was the first of all."""
        windows = time.monotonic() - self.began
        assert self.rows() <= buckets * (windows + 1), (self.rows(), buckets, windows)


# ---- rows ----------------------------------------------------------------------------------------

def test_the_first_is_a_row_at_once_and_its_repeats_are_one(make_stack):
    stack = make_stack(sets=("eventd.aggregate.seconds=10",))
    agent = stack.agent(tenant="acme")
    cases = [(stack.context(agent.crt, agent.key), address) for address in ADDRESSES]
    assert run(stack, cases[:1], 1) == {SUCCESS: 1}
    first, = wait_for(lambda: stack.events("acme", event_type=SUCCESS), seconds=5)
    assert (first["count"], first["source_ip"]) == (1, ADDRESSES[0])
    assert first["details"] == {"protocol": "TLSv1.3", "role": "agent", "resumed": False}
    assert run(stack, cases, 30) == {SUCCESS: 30}
    rows = wait_for(lambda: (found := stack.events("acme", event_type=SUCCESS))[1:] and found)
    repeats, = [row for row in rows if row["event_id"] != first["event_id"]]
    assert (repeats["count"], repeats["spiffe_id"], repeats["severity"]) == (30, agent.spiffe_id, "info")
    details = repeats["details"]
    assert set(details.pop("addresses")) == set(ADDRESSES)
    assert details.pop("first_seen") < details.pop("last_seen")
    assert details == first["details"]
    page = stack.operator("auditor", "acme").get("/v1/security/events", params={"type": SUCCESS}).json()
    assert {event["event_id"]: event["count"] for event in page["events"] if event["spiffe_id"] == agent.spiffe_id} == \
        {str(row["event_id"]): row["count"] for row in rows}


def test_a_stop_writes_what_is_counted(make_stack):
    stack = make_stack(sets=("eventd.aggregate.seconds=10",))
    ledger = Ledger(stack)
    seen = run(stack, refused_cases(stack, ADDRESSES[:1]), 20)
    stack.stop("eventd")
    assert ledger.gained()[FAILURE] == seen[FAILURE] == 20
    stack.start("eventd")


# ---- floods --------------------------------------------------------------------------------------

def test_a_flood_adds_up(own):
    ledger = Ledger(own)
    cases = accepted_cases(own, unique("tenant")) + refused_cases(own, [*ADDRESSES, "::1"])
    flood = Flood(own, cases)
    flood.wait(600)
    seen = flood.stop()
    assert seen[CUT] == 0
    ledger.check(seen)
    ledger.check_bounded(buckets=5 + len(ADDRESSES) + 1)


def test_a_flood_adds_up_though_eventd_stops_and_the_database_is_away(own):
    ledger = Ledger(own)
    flood = Flood(own, accepted_cases(own, unique("tenant")) + refused_cases(own, ADDRESSES))
    flood.wait(150)
    own.restart("eventd")
    flood.wait(150)
    with own.without("postgres"):
        flood.wait(300)
    flood.wait(150)
    seen = flood.stop()
    assert seen[CUT] == 0
    ledger.check(seen)


def test_a_flood_adds_up_over_a_workers_death(own):
    ledger = Ledger(own)
    flood = Flood(own, accepted_cases(own, unique("tenant")) + refused_cases(own, ADDRESSES))
    deaths = 0
    while deaths < 3 or (not flood.cut and deaths < 30):  # a worker may have had nobody's handshake in its hands
        flood.wait(150)
        os.kill(own.workers()[0], signal.SIGKILL)
        wait_for(lambda: len(own.workers()) == 3)
        deaths += 1
    flood.wait(150)
    seen = flood.stop()
    assert 0 < seen[CUT] < seen.total() / 4
    ledger.check(seen)


def test_what_is_sent_again_to_the_next_life_counts_once(own):
    """The first of each identity is on its way to the database when eventd is killed."""
    ledger = Ledger(own)
    cases = accepted_cases(own, unique("tenant"), count=8)[::2]
    with own.table_locked("security_events"):
        assert run(own, cases, len(cases)) == {SUCCESS: len(cases)}
        own.kill("eventd")
        wait_for(lambda: own.client().get("/livez").status_code == 200)
    wait_for(lambda: ledger.gained()[SUCCESS] >= len(cases), seconds=30, what="the next life's rows")
    assert ledger.settle() == {SUCCESS: len(cases)}


# ---- bounds --------------------------------------------------------------------------------------

def test_what_finds_no_bucket_is_counted_together(make_stack):
    stack = make_stack(sets=(*FAST, "eventd.aggregate.identities=2", "eventd.aggregate.addresses=2"))
    tenant, ledger = unique("tenant"), Ledger(stack)
    flood = Flood(stack, accepted_cases(stack, tenant, count=6) + refused_cases(stack, ADDRESSES))
    flood.wait(400)
    seen = flood.stop()
    assert seen[CUT] == 0
    ledger.check(seen)
    ledger.check_bounded(buckets=2 + 2 + 2)
    for kind in (SUCCESS, FAILURE):
        overflow = [event for event in stack.events("_system", event_type=kind) if event["details"].get("overflow")]
        assert sum(event["count"] for event in overflow) > seen[kind] / 3
        assert {event["spiffe_id"] for event in overflow} == {None}


def test_what_finds_no_room_in_the_worker_is_told_later(make_stack):
    stack = make_stack("--workers", "1", sets=(*FAST, "frontd.limits.in_flight=10"))
    ledger = Ledger(stack)
    cases = accepted_cases(stack, unique("tenant"), count=2) + refused_cases(stack, ADDRESSES[:2])
    with stack.without("eventd"):
        seen = run(stack, cases, 60)
    assert seen[CUT] == 0 and seen[SUCCESS] and seen[FAILURE]
    assert ledger.settle() == seen
    late = [event for event in stack.events("_system") if event["details"].get("told_late")]
    assert {event["event_type"] for event in late} == {SUCCESS, FAILURE}
    assert sum(event["count"] for event in late) >= 60 - 10
    assert 1 <= stack.log("frontd").count("told later") <= 7  # the first, and each time that there are twice as many
