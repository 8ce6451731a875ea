"""A back daemon that is broken, or in somebody else's hands: a worker gives its client an error, and does not die of it.

Before registryd stands one that answers as the test wants; for the other daemons see test_broken_backs.py."""

import contextlib

import pytest
from fake_daemon import ID, FakeDaemon, frame, hello
from harness import Stack, check_error, wait_for
from scraping import scrape

JSON = '{"a":"' + "x" * 200 + '"}'
ANSWERS = {
    "status": [4, ID, True, False, JSON],
    "mesh_registered": [31, ID, True, False, JSON, 10, 100, b""],
    "mesh_beat": [33, ID, "a" * 200, "active", 1, 1],
    "mesh_agent": [35, ID, JSON],
}
RIGHT = {"register": "mesh_registered", "heartbeat": "mesh_beat", "self": "mesh_agent"}
REASONS = {"length": "frame of a forbidden length", "malformed": "malformed frame", "hello": "wrong HELLO",
           "unasked": "an answer that nobody asked for"}


def refusals(own):
    return scrape(own).values_of("backend_refusals_total", "reason", backend="registryd")


@pytest.fixture(scope="module")
def refused():
    """How many refusals of which reason the tests have seen in the log."""
    return dict.fromkeys(REASONS, 0)


@pytest.fixture(scope="module")
def own(refused):
    """A stack with a fake before its registryd; at the end registryd is heard again, and then everything works."""
    sets = ["frontd.timeouts.read_deadline_seconds=1", "frontd.timeouts.write_deadline_seconds=1"]
    made = Stack("--workers", "1", sets=sets).up()
    made.fake = FakeDaemon(made, "registryd")
    made.restart("frontd")
    workers, before = made.workers(), refusals(made)
    yield made
    made.fake.hand_on()
    agent = made.agent()
    wait_for(lambda: agent.register().status_code == 201)
    assert agent.self().json()["agent"]["agent_id"] == agent.name
    assert made.workers() == workers
    after = refusals(made)
    assert all(after[reason] - before[reason] >= refused.get(reason, 0) for reason in after), (before, after, refused)
    assert {reason for reason in after if after[reason] > before[reason]} == {reason for reason in refused if refused[reason]}
    made.fake.close()
    made.close()


@contextlib.contextmanager
def registryd_taken(own, answer, greeting=hello("registryd")):
    """The fake plays meanwhile, and costs no worker its life."""
    before = own.workers()
    own.fake.play(greeting, answer)
    yield
    assert own.workers() == before


@contextlib.contextmanager
def refusal(own, refused, reason):
    """A worker says meanwhile why it refuses registryd; None: it does not."""
    since = len(own.log("frontd"))
    yield
    if reason:
        wait_for(lambda: any("backend lost" in line and REASONS[reason] in line
                             for line in own.log("frontd")[since:].splitlines()), what=REASONS[reason])
        refused[reason] += 1


def ask(agent, name):
    return {"register": agent.register, "heartbeat": agent.heartbeat, "self": agent.self}[name]()


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_to_another_question(own, name):
    agent = own.agent()
    with registryd_taken(own, frame(*ANSWERS[name])):
        for question, right in RIGHT.items():
            answer = ask(agent, question)
            if right == name:
                assert answer.status_code in (200, 201)
            else:
                assert answer.status_code in (500, 503), answer.text
                check_error(answer, answer.status_code, {500: "INTERNAL", 503: "UNAVAILABLE"}[answer.status_code])


@pytest.mark.parametrize("code", ["CONFLICT", "NONSENSE", "x" * 32])
def test_a_failure_of_any_name(own, code):
    with registryd_taken(own, frame(2, ID, code, "no \"quotes\"\n harm")):
        answer = own.agent().self()
        check_error(answer, 409 if code == "CONFLICT" else 500, "CONFLICT" if code == "CONFLICT" else "INTERNAL")


# Why the worker refuses it (None: it waits for the rest), and the answer. What follows one another differs in its reason
# or the log's detail of it: of the same again the log tells at each doubling only.
BROKEN = {
    "garbage": ("length", b"\xff" * 64),
    "half an answer": (None, frame(*ANSWERS["mesh_agent"])[:20]),
    "a length of 4 GiB": ("length", b"\xff\xff\xff\xff"),
    "an answer of the wrong shape": ("malformed", frame(35, ID, 7)),
    "a member too long": ("malformed", frame(33, ID, "a" * 256, "active", 1, 1)),
    "a request": ("malformed", frame(34, ID, "acme", "spiffe://x/y")),
    "no UTF-8": ("malformed", frame(35, ID, "{{}}").replace(b"{{}}", b"{\xff\xfe}")),
    "somebody else's message": ("malformed", frame(54, ID, "{}")),
    "an answer to nobody": ("unasked", frame(35, b"nobody's request", JSON)),
    "a push that is none": ("unasked", frame(35, bytes(16), JSON)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer(own, refused, name):
    agent, (reason, answer) = own.agent(), BROKEN[name]
    with registryd_taken(own, answer), refusal(own, refused, reason):
        check_error(agent.self(), 503, "UNAVAILABLE")


@pytest.mark.parametrize("reason, greeting", [
    ("length", b"\xff" * 64), ("hello", hello("registryd", version=2)), ("hello", hello("eventd")),
    ("hello", frame(35, ID, JSON))], ids=["garbage", "version", "name", "no HELLO"])
def test_a_wrong_hello(own, refused, reason, greeting):
    agent = own.agent()
    with registryd_taken(own, frame(*ANSWERS["mesh_agent"]), greeting), refusal(own, refused, reason):
        check_error(agent.self(), 503, "UNAVAILABLE")


def test_two_answers_to_one_question(own):
    agent = own.agent()
    with registryd_taken(own, frame(*ANSWERS["mesh_agent"]) * 2):
        for _ in range(3):
            assert agent.self().status_code == 200
