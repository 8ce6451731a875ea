"""Two nodes under load while any of their processes is killed at any moment: nothing that was promised is lost."""

import os
import random
import signal
import threading
import time

import pytest
from crowds import check_exactly_once, enrollments
from harness import unique, wait_for

BACK = ("keeper", "registryd", "auditd", "eventd", "redis")
FRONT = ("frontd", "worker")
AFTERMATH_SECONDS = 5  # the connections of a killed front end within that long
AGENTS = 6  # of each node


class Clients:
    """Agents of one node that register and beat without end; each keeps its connection as long as it can."""

    def __init__(self, stack, tenant, count):
        self.stack = stack
        self.agents = [stack.agent(tenant=tenant) for _ in range(count)]
        self.answers, self.broken = [], []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=[agent]) for agent in self.agents]

    def run(self, agent):
        turn, is_known = 0, False
        while not self.stopping.is_set():
            turn += 1
            try:
                beats = is_known and turn % 4
                answer = agent.heartbeat() if beats else agent.register(machine_id_fingerprint="m")
                is_known = True
                self.answers.append((time.monotonic(), answer))
            except Exception as error:  # what the client saw is the result
                self.broken.append((time.monotonic(), error))
                time.sleep(0.02)

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def registered(self):
        return [answer for _, answer in self.answers if answer.request.url.path.endswith("/register")]


class Killer:
    """Kills one process after the other, whichever comes up, and keeps a list of when each front fell."""

    def __init__(self, nodes, seed):
        self.nodes, self.random = nodes, random.Random(seed)
        self.kills = []

    def kill_one(self, parts):
        node, part = self.random.choice(self.nodes), self.random.choice(parts)
        if part == "redis":
            node = self.nodes[0]
        started = time.monotonic()
        if part == "worker":
            os.kill(self.random.choice(node.workers()), signal.SIGKILL)
            wait_for(lambda: len(node.workers()) == 2)
        else:
            node.kill(part)
        self.kills.append((node, part, started, time.monotonic()))

    def run(self, seconds, parts):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.kill_one(parts)
            time.sleep(self.random.uniform(0.1, 1))

    def excuses(self, node, moment):
        """Whether a front of that node fell shortly before."""
        return any(killed is node and part in FRONT and started <= moment <= ended + AFTERMATH_SECONDS
                   for killed, part, started, ended in self.kills)


def harass(make_stack, seconds, parts):
    """The load, the kills, and then the reckoning; returns the clients."""
    first = make_stack()
    nodes = [first, make_stack(join=first)]
    tenant, seed = unique("chaos"), random.randrange(1 << 32)
    killer = Killer(nodes, seed)
    clients = [Clients(node, tenant, AGENTS) for node in nodes]
    for each in clients:
        each.start()
    try:
        killer.run(seconds, parts)
    finally:
        for each in clients:
            each.stop()
    print(f"seed {seed}: {len(killer.kills)} kills, {[len(each.answers) for each in clients]} answers, "
          f"{[len(each.broken) for each in clients]} connections broken")
    for each in clients:
        check_clients(each, killer)
    check_records(first, tenant, clients)


def check_clients(clients, killer):
    """Every answer is good; a connection broke only where a front had been killed."""
    wrong = [answer.text for _, answer in clients.answers if answer.status_code not in (200, 201)]
    assert not wrong
    unexcused = [repr(error) for moment, error in clients.broken if not killer.excuses(clients.stack, moment)]
    assert not unexcused


def check_records(stack, tenant, clients):
    """Each registration that was answered is its agent's row, and its event exactly once; so is each that was not."""
    answers = [answer for each in clients for answer in each.registered()]
    check_exactly_once(stack, tenant, answers)
    rows = stack.rows("SELECT spiffe_id, state FROM agent_registry WHERE tenant_id = %s", tenant)
    assert sorted(rows) == sorted((agent.spiffe_id, "active") for each in clients for agent in each.agents)
    unheard = sum(enrollments(stack, tenant).values()) - len(answers)
    assert 0 <= unheard <= sum(len(each.broken) for each in clients)


def test_killed_back_daemons_fail_nobody(make_stack):
    harass(make_stack, 15, BACK)


def test_killed_processes_lose_nothing(make_stack):
    harass(make_stack, 15, BACK + FRONT)


@pytest.mark.long
def test_five_minutes_of_kills(make_stack):
    harass(make_stack, 300, BACK + FRONT)


def test_connections_of_a_surviving_worker_live_on(stack):
    agent = stack.agent()
    agent.register()
    connections = [stack.connection(agent.crt, agent.key) for _ in range(24)]
    assert all(connection.is_open() for connection in connections)
    before = stack.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(now := stack.workers()) == len(before) and before[0] not in now)
    alive = [connection.is_open() for connection in connections]
    for connection in connections:
        connection.socket.close()
    assert any(alive) and not all(alive)
