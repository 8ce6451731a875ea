"""Many clients at once, and what must hold of all that they were told."""

import collections
import threading

from harness import unique, wait_for

ENROLLED = "identity.enrollment_success"
OPEN_EVERY_TIME = 3


def at_once(calls):
    """Runs all calls at the same moment, each in a thread of its own; their results, or what they raised."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(number, call):
        barrier.wait()
        try:
            results[number] = call()
        except Exception as error:  # what the client saw is the result
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def statuses(answers):
    return collections.Counter(getattr(answer, "status_code", repr(answer)) for answer in answers)


def enrollments(stack, tenant):
    """How often each trace_id has its enrollment event."""
    return collections.Counter(event["trace_id"] for event in stack.events(tenant, event_type=ENROLLED))


def check_exactly_once(stack, tenant, answers):
    """Every registration that was answered has its event exactly once, and nothing waits any more."""
    traces = [answer.json()["trace_id"] for answer in answers]
    assert len(set(traces)) == len(traces)
    wait_for(lambda: set(traces) <= set(enrollments(stack, tenant)), 30, "every event")
    wait_for(lambda: stack.rows("SELECT 1 FROM identity_outbox WHERE tenant_id = %s", tenant) == [] or None, 30)
    assert set(enrollments(stack, tenant).values()) == {1}


class Beside:
    """Threads beside what is done within a `with`, one a tuple of arguments; run ends when self.stopping is set."""

    def __init__(self, run, arguments):
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=run, args=each) for each in arguments]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Load(Beside):
    """Agents that register again and again, some on a new connection each time, until told to stop."""

    def __init__(self, stack, count=10):
        self.stack, self.tenant = stack, unique("load")
        self.agents = [stack.agent(tenant=self.tenant) for _ in range(count)]
        self.answers = []
        super().__init__(self.run, enumerate(self.agents))

    def run(self, number, agent):
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            client = agent.client if number % OPEN_EVERY_TIME else self.stack.client(agent.crt, agent.key)
            try:
                body = {"hostname": agent.name, "machine_id_fingerprint": f"fp-{turn % 7}"}
                self.answers.append(client.post("/v1/mesh/register", json=body))
            except Exception as error:  # what the client saw is the result
                self.answers.append(error)
            if client is not agent.client:
                client.close()

    def good(self):
        return [answer for answer in self.answers if getattr(answer, "status_code", 0) in (200, 201)]

    def progress(self, more=30):
        """Waits until as many answers more have come."""
        goal = len(self.good()) + more
        wait_for(lambda: len(self.good()) >= goal, 40, "progress under load")

    def check(self):
        """Every 2xx is a row with its event exactly once; no event is of a registration that is no row."""
        check_exactly_once(self.stack, self.tenant, self.good())
        seen = {answer.json()["agent"]["spiffe_id"] for answer in self.good()}
        rows = {row[0] for row in self.stack.rows("SELECT spiffe_id FROM agent_registry WHERE tenant_id = %s",
                                                  self.tenant)}
        assert seen == rows == {agent.spiffe_id for agent in self.agents}
