"""Register, heartbeat and self: what an agent asks, and what it is answered (contract, Routes)."""

import json

import pytest
from harness import TIME, check_error, check_registered, unique, wait_for

FULL = {
    "machine_id_fingerprint": "fp-1",
    "endpoint": "https://10.0.0.7:9000/",
    "version": "1.2.3",
    "capabilities": ["read", "write"],
    "metadata": {"zone": "a", "nested": {"list": [1, 2.5, None, True, "é"]}},
}


@pytest.fixture
def agent(stack):
    return stack.agent()


# ---- register ------------------------------------------------------------------------------------


def test_register_says_created_once(agent):
    first = check_registered(agent.register(**FULL), 201)
    second = check_registered(agent.register(**FULL), 200)
    assert not first["fingerprint_drift"] and not second["fingerprint_drift"]
    assert first["trace_id"] != second["trace_id"]
    assert first["agent"]["registered_at"] == second["agent"]["registered_at"]


def test_register_answers_with_the_record(stack, agent):
    record = check_registered(agent.register(hostname="Node-7.Example.", **FULL), 201)["agent"]
    assert record["agent_id"] == agent.name
    assert record["tenant_id"] == "acme"
    assert record["spiffe_id"] == agent.spiffe_id == f"spiffe://{stack.trust_domain}/agent/acme/{agent.name}"
    assert record["hostname"] == "node-7.example"
    assert {name: record[name] for name in FULL} == FULL
    assert record["state"] == "active"
    assert record["last_heartbeat_via"] == "certificate"
    assert TIME.fullmatch(record["registered_at"]) and TIME.fullmatch(record["last_heartbeat"])


def test_first_register_may_name_a_hostname_alone(agent):
    record = check_registered(agent.register(), 201)["agent"]
    assert record["machine_id_fingerprint"] is None


@pytest.mark.parametrize("absent", [{}, dict.fromkeys(FULL)], ids=["absent", "null"])
def test_absent_members_leave_what_is_on_record(agent, absent):
    agent.register(**FULL)
    body = check_registered(agent.register(**absent), 200)
    assert {name: body["agent"][name] for name in FULL} == FULL
    assert not body["fingerprint_drift"]
    assert agent.self().json()["agent"]["metadata"] == FULL["metadata"]


@pytest.mark.parametrize("member", FULL)
def test_one_member_changes_alone(agent, member):
    other = {"machine_id_fingerprint": "fp-2", "endpoint": "x", "version": "2", "capabilities": [], "metadata": {}}
    agent.register(**FULL)
    record = check_registered(agent.register(**{member: other[member]}), 200)["agent"]
    assert {name: record[name] for name in FULL} == {**FULL, member: other[member]}


def test_unknown_members_are_ignored(agent):
    check_registered(agent.register(tenant_id="other", spiffe_id="spiffe://x/y", state="revoked", nonsense=[1]), 201)
    record = agent.self().json()["agent"]
    assert (record["tenant_id"], record["spiffe_id"], record["state"]) == ("acme", agent.spiffe_id, "active")


def test_drift_is_told_when_both_fingerprints_are_known(agent):
    drifts = [agent.register(machine_id_fingerprint=fp).json()["fingerprint_drift"]
              for fp in (None, "a", "a", "b", None, "b", "a")]
    assert drifts == [False, False, False, True, False, False, True]


def test_drift_event_holds_both_fingerprints(stack, agent):
    agent.register(machine_id_fingerprint="old-one")
    trace = agent.register(machine_id_fingerprint="new-one").json()["trace_id"]
    event, = wait_for(lambda: stack.events("acme", trace_id=trace, event_type="identity.fingerprint_drift"))
    assert event["severity"] == "warn"
    assert event["spiffe_id"] == agent.spiffe_id
    assert {"old-one", "new-one"} <= set(event["details"].values())


def test_hostname_change_is_an_event(stack, agent):
    agent.register(hostname="before")
    trace = agent.register(hostname="AFTER.").json()["trace_id"]
    event, = wait_for(lambda: stack.events("acme", trace_id=trace, event_type="identity.hostname_changed"))
    assert (event["severity"], event["hostname"]) == ("info", "after")
    again = agent.register(hostname="after").json()["trace_id"]
    wait_for(lambda: stack.events("acme", trace_id=again))
    assert [e["event_type"] for e in stack.events("acme", trace_id=again)] == ["identity.enrollment_success"]


def test_every_register_is_an_enrollment_event(stack, agent):
    traces = [agent.register(machine_id_fingerprint="m").json()["trace_id"] for _ in range(3)]
    for trace in traces:
        event, = wait_for(lambda trace=trace: stack.events("acme", trace_id=trace))
        assert (event["event_type"], event["severity"]) == ("identity.enrollment_success", "info")
        assert (event["spiffe_id"], event["hostname"]) == (agent.spiffe_id, agent.name)
        assert (event["source_ip"], event["count"]) == ("127.0.0.1", 1)


def test_a_second_identity_takes_nothing_over(stack):
    host = unique("shared")
    one, two = stack.agent(), stack.agent()
    check_registered(one.register(hostname=host, machine_id_fingerprint="same"), 201)
    check_registered(two.register(hostname=host, machine_id_fingerprint="same"), 201)
    assert one.self().json()["agent"]["agent_id"] == one.name
    assert two.self().json()["agent"]["agent_id"] == two.name
    assert stack.rows("SELECT count(*) FROM agent_registry WHERE hostname = %s", host) == [(2,)]


def test_tenants_are_apart(stack):
    name = unique("agent")
    here, there = stack.agent(name, "acme"), stack.agent(name, "globex")
    check_registered(here.register(version="here"), 201)
    check_registered(there.register(version="there"), 201)
    assert here.self().json()["agent"]["version"] == "here"
    assert there.self().json()["agent"]["tenant_id"] == "globex"


def test_a_second_identity_with_the_same_agent_id_is_a_conflict(make_stack):
    """Two path templates, one after the other, give two SPIFFE IDs with one agent_id."""
    own = make_stack()
    check_registered(own.agent("twin").register(), 201)
    own.down()
    own.options += ["--set", "frontd.identity.agent_path=/workload/{tenant}/{agent}"]
    own.up()
    second = own.client(*own.cert(f"spiffe://{own.trust_domain}/workload/acme/twin"))
    check_error(second.post("/v1/mesh/register", json={"hostname": "h"}), 409, "CONFLICT")
    check_error(second.get("/v1/mesh/self"), 404, "NOT_REGISTERED", recovery=True)
    assert own.rows("SELECT spiffe_id FROM agent_registry") == [(own.agent_id("acme", "twin"),)]


# ---- what register refuses -----------------------------------------------------------------------

LABEL = "a" * 63
REFUSED = {
    "hostname": [None, "", 7, True, [], {}, "a" * 64, f"{LABEL}." * 4 + "a", "under_score", "-a", "a-", "a.-b", "a..b",
                 ".a", ".", "a b", " a", "a ", "é.example", "a/b", "[::1]"],
    "machine_id_fingerprint": ["", "f" * 257, 7, False, [], {}, "a\nb", "\u007f", "é", "\t"],
    "endpoint": ["e" * 513, 7, False, [], {}],
    "version": ["v" * 65, 1.5, False, [], {}],
    "capabilities": ["read", {}, 7, False, ["c"] * 65, ["c" * 129], [1], [None], [["a"]], [{}]],
    "metadata": ["text", [], 7, False, {"a": "x" * 4089}],
}


@pytest.fixture(scope="module")
def unregistered(stack):
    return stack.agent()


@pytest.mark.parametrize("member, value", [(m, v) for m, values in REFUSED.items() for v in values],
                         ids=lambda v: repr(v)[:24])
def test_a_wrong_member_is_named(unregistered, member, value):
    answer = unregistered.register({"hostname": "h", **FULL, member: value})
    check_error(answer, 400, "VALIDATION", names=member)
    check_error(unregistered.self(), 404, "NOT_REGISTERED", recovery=True)


@pytest.mark.parametrize("member", ["hostname", "endpoint", "version", "machine_id_fingerprint"])
def test_no_text_holds_a_nul(unregistered, member):
    check_error(unregistered.register({"hostname": "h", member: "a\u0000b"}), 400, "VALIDATION")


def test_a_missing_hostname_is_named(agent):
    check_error(agent.register(FULL), 400, "VALIDATION", names="hostname")


ACCEPTED = {
    "hostname": [f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}", "7", "a.b", "xn--bcher-kva.example", "h."],
    "machine_id_fingerprint": ["f" * 256, " !~", "a b"],
    "endpoint": ["e" * 512],
    "version": ["v" * 64],
    "capabilities": [[], ["c" * 128] * 64],
    "metadata": [{}, {"a": "x" * 4088}, {"a": "é" * 2044}],
}


@pytest.mark.parametrize("member, value", [(m, v) for m, values in ACCEPTED.items() for v in values],
                         ids=lambda v: repr(v)[:24])
def test_the_last_allowed_value_is_taken(agent, member, value):
    answer = agent.register({"hostname": "h", member: value})
    kept = check_registered(answer, 201)["agent"][member]
    assert kept == (value.rstrip(".") if member == "hostname" else value)


def test_spaces_in_metadata_do_not_count(agent):
    loose = '{"hostname": "h", "metadata": {' + " " * 8000 + '"a"  :  1}}'
    assert agent.client.post("/v1/mesh/register", content=loose).status_code == 201


SPELLED = {  # as sent, and as PostgreSQL's numeric writes the same number
    "0.1": "0.1", "1.50": "1.50", "1E2": "100", "1e-3": "0.001", "-0.0": "0.0", "1e308": "1" + "0" * 308,
    "1e-308": "0." + "0" * 307 + "1", "18446744073709551616": "18446744073709551616",
    "0.1234567890123456789012345678901234567890": "0.1234567890123456789012345678901234567890",
}


@pytest.mark.parametrize("sent, kept", SPELLED.items(), ids=lambda v: v[:12])
@pytest.mark.parametrize("route", ["register", "heartbeat"])
def test_a_number_in_metadata_stays_the_number_it_was(agent, route, sent, kept):
    agent.register()
    body = f'{{"x":[7,{{"7":"7"}}],"metadata":{{"a":{sent}}},"hostname":"h"}}'
    assert agent.client.post(f"/v1/mesh/{route}", content=body).status_code == 200
    assert f'"metadata":{{"a": {kept}}}' in agent.self().text


def test_metadata_full_of_the_longest_numbers(agent):
    """What 4 KiB of it become when numeric writes them out still fits wherever the record goes."""
    body = {"metadata": {"a": "@"}, "hostname": "h"}
    numbers = ",".join(["1e308"] * 681)
    assert len(f'{{"a":[{numbers}]}}') <= 4096
    text = json.dumps(body).replace('"@"', f"[{numbers}]")
    assert agent.client.post("/v1/mesh/register", content=text).status_code == 201
    assert agent.self().json()["agent"]["metadata"]["a"] == [10**308] * 681


@pytest.mark.parametrize("number", ["1e309", "1e-309", "1e999999", "1e-999999", "0e999999", "1e-2147483648",
                                    "1e99999999999999999999", "1" * 400])
@pytest.mark.parametrize("route", ["register", "heartbeat"])
def test_a_number_out_of_bounds_is_refused(unregistered, route, number):
    body = f'{{"hostname":"h","metadata":{{"a":[1,{number}]}}}}'
    check_error(unregistered.client.post(f"/v1/mesh/{route}", content=body), 400, "VALIDATION")


def nested(depth):
    """A body whose depth, the outermost object counted, is this."""
    return '{"hostname":"h","deep":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


BAD_JSON = {
    "not JSON": "hostname=h", "cut": '{"hostname":"h"', "trailing": '{"hostname":"h"} x', "two": "{}{}",
    "array": "[]", "string": '"h"', "null": "null", "number": "1", "spaces": "  ",
    "duplicate key": '{"hostname":"a","hostname":"b"}', "duplicate key below": '{"hostname":"h","x":{"k":1,"k":1}}',
    "too deep": nested(33), "far too deep": nested(20000),
    "no UTF-8": b'{"hostname":"h","x":"\xff\xfe"}', "overlong UTF-8": b'{"hostname":"h","x":"\xc0\xaf"}',
    "surrogate": '{"hostname":"h","x":"\\ud800"}', "NUL": '{"hostname":"h","metadata":{"a":"\\u0000"}}',
    "NUL in a key": '{"hostname":"h","metadata":{"\\u0000":1}}',
    "NUL in a list": '{"hostname":"h","capabilities":["\\u0000"]}',
    "raw control": '{"hostname":"h","x":"\n"}', "comment": '{"hostname":"h"/**/}', "comma": '{"hostname":"h",}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
@pytest.mark.parametrize("route", ["register", "heartbeat"])
def test_a_bad_body_is_refused(unregistered, route, body):
    check_error(unregistered.client.post(f"/v1/mesh/{route}", content=body), 400, "VALIDATION")


def test_register_needs_a_body(unregistered):
    check_error(unregistered.client.post("/v1/mesh/register"), 400, "VALIDATION")


def test_depth_32_is_taken(agent):
    assert agent.client.post("/v1/mesh/register", content=nested(32)).status_code == 201


# ---- heartbeat and self --------------------------------------------------------------------------


def test_heartbeat(agent):
    agent.register()
    answer = agent.heartbeat()
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"status", "agent_id", "state", "last_heartbeat", "next_due_ms"}
    assert (body["status"], body["agent_id"], body["state"]) == ("ok", agent.name, "active")
    assert TIME.fullmatch(body["last_heartbeat"])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"status":null,"metadata":null,"hostname":null,"other":1}'])
def test_heartbeat_takes_little(agent, content):
    agent.register()
    assert agent.client.post("/v1/mesh/heartbeat", content=content).status_code == 200


def test_heartbeat_is_written_behind(stack, agent):
    agent.register(metadata={"a": 1})
    told = agent.heartbeat(status="busy", metadata={"b": 2}).json()["last_heartbeat"]
    record = wait_for(lambda: (r := agent.self().json()["agent"])["heartbeat_status"] == "busy" and r)
    assert record["metadata"] == {"b": 2}
    assert record["last_heartbeat"] >= told
    rows = stack.rows("SELECT heartbeat_status, last_heartbeat_via FROM agent_registry WHERE spiffe_id = %s",
                      agent.spiffe_id)
    assert rows == [("busy", "certificate")]


def test_heartbeat_moves_the_time_on(agent):
    before = agent.register().json()["agent"]["last_heartbeat"]
    times = [agent.heartbeat().json()["last_heartbeat"] for _ in range(3)]
    assert [before, *times] == sorted([before, *times]) and times[-1] > before
    wait_for(lambda: agent.self().json()["agent"]["last_heartbeat"] >= times[-1])


def test_a_hostname_in_a_heartbeat_changes_nothing(stack, agent):
    victim = stack.agent()
    victim.register()
    agent.register()
    before = victim.self().json()["agent"]["last_heartbeat"]
    body = agent.heartbeat(hostname=victim.name).json()
    assert body["agent_id"] == agent.name
    wait_for(lambda: agent.self().json()["agent"]["last_heartbeat"] >= body["last_heartbeat"])
    assert agent.self().json()["agent"]["hostname"] == agent.name
    assert victim.self().json()["agent"]["last_heartbeat"] == before


@pytest.mark.parametrize("member, value", [
    ("hostname", "under_score"), ("hostname", 7), ("hostname", "a" * 254), ("status", 7), ("status", "s" * 65),
    ("status", []), ("metadata", []), ("metadata", "text"), ("metadata", {"a": "x" * 4089}),
], ids=lambda v: repr(v)[:24])
def test_a_wrong_heartbeat_member_is_named(agent, member, value):
    agent.register()
    check_error(agent.heartbeat(**{member: value}), 400, "VALIDATION", names=member)


def test_never_registered(agent):
    for answer in (agent.heartbeat(), agent.self(), agent.heartbeat(hostname=agent.name)):
        check_error(answer, 404, "NOT_REGISTERED", recovery=True)
        recovery = answer.json()["recovery"]
        assert (recovery["method"], recovery["path"]) == ("POST", "/v1/mesh/register")


def test_self_is_the_record(agent):
    record = agent.register(**FULL).json()["agent"]
    answer = agent.self()
    assert answer.status_code == 200
    assert answer.json() == {"agent": record}


def test_next_due_is_bounded_and_spread(stack):
    agents = [stack.agent() for _ in range(12)]
    due = []
    for agent in agents:
        heartbeat = agent.register().json()["heartbeat"]
        assert heartbeat["interval_seconds"] == 10
        due += [heartbeat["next_due_ms"], agent.heartbeat().json()["next_due_ms"]]
    assert all(isinstance(ms, int) and 0 < ms <= 20000 for ms in due)
    assert len({ms // 100 for ms in due}) > 4


def test_the_interval_is_an_option(make_stack):
    own = make_stack(sets=["registryd.mesh.heartbeat_interval_seconds=3"])
    agent = own.agent()
    heartbeat = agent.register().json()["heartbeat"]
    assert heartbeat["interval_seconds"] == 3 and 0 < heartbeat["next_due_ms"] <= 6000


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_every_route_has_two_names(agent, prefix):
    post, get = agent.client.post, agent.client.get
    check_registered(post(f"{prefix}/mesh/register", json={"hostname": "h"}), 201)
    assert post(f"{prefix}/mesh/heartbeat").status_code == 200
    assert get(f"{prefix}/mesh/self").json()["agent"]["agent_id"] == agent.name


def test_stored_times_are_those_told(stack, agent):
    told = agent.register().json()["agent"]["registered_at"]
    kept, = stack.rows("SELECT caf_time(registered_at) FROM agent_registry WHERE spiffe_id = %s", agent.spiffe_id)
    assert kept == (told,)


def test_a_large_body_of_unknown_members_is_taken(agent):
    body = {"hostname": "h", "pad": ""}
    body["pad"] = "x" * (65536 - len(json.dumps(body)))
    assert len(json.dumps(body)) == 65536
    assert agent.client.post("/v1/mesh/register", content=json.dumps(body)).status_code == 201
