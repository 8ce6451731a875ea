"""A node that is gone for good leaves `nodes` after a time; one that lives, or comes back, has its row."""

import contextlib

from harness import FAST, wait_for
from nodes import Visitor, metric, set_state, wait_for_reads


def run(stack, statement, *params):
    """As the owner of the tables does."""
    with contextlib.closing(stack.db("postgres")) as link, link.cursor() as cursor:
        cursor.execute(statement, params)


def add(stack, node, silent, applied=None):
    run(stack, "INSERT INTO nodes (node, last_seen, applied) VALUES (%s, now() - %s::interval, %s)", node, silent, applied)


def known(stack):
    return {name for name, in stack.rows("SELECT node FROM nodes")}


def test_who_is_silent_for_too_long_is_forgotten(make_stack):
    stack = make_stack(sets=(*FAST, "registryd.nodes.forget_days=2", "registryd.feed.reload_seconds=1"))
    own = stack.env["CAF_NODE"]
    wait_for(lambda: known(stack) == {own})
    add(stack, "away", "47 hours", applied="10:10:")
    add(stack, "gone", "49 hours", applied="10:10:")
    add(stack, "never-read", "49 hours")
    wait_for(lambda: known(stack) == {own, "away"})
    run(stack, "UPDATE nodes SET last_seen = last_seen - interval '2 hours' WHERE node = 'away'")
    wait_for(lambda: known(stack) == {own})
    log = [line for line in stack.log("registryd").splitlines() if "a node is forgotten" in line]
    assert [name for name in ("away", "gone", "never-read", own) for line in log if f" name={name} " in line] == [
        "away", "gone", "never-read"], log


def test_a_thousand_that_are_gone_hold_up_nobody_at_start(make_stack):
    stack = make_stack(sets=FAST)
    stack.stop("registryd")
    for interval, first in (("31 days", 0), ("29 days", 1000)):
        run(stack, "INSERT INTO nodes SELECT 'old-' || n, now() - %s::interval FROM generate_series(%s, %s) AS n",
            interval, first, first + 999)
    stack.start("registryd")
    wait_for(lambda: known(stack) == {stack.env["CAF_NODE"], *(f"old-{n}" for n in range(1000, 2000))})


def test_a_node_that_was_forgotten_comes_back_with_its_next_read(stack, second):
    agent = stack.agent()
    agent.register()
    visitor = Visitor(second, agent)
    wait_for(lambda: visitor.heartbeat().status_code == 200)
    run(stack, "DELETE FROM nodes WHERE node = %s", second.env["CAF_NODE"])
    set_state(stack, agent, "quarantined", told=True)
    wait_for(lambda: visitor.heartbeat().json()["state"] == "quarantined")
    wait_for_reads(second)
    assert stack.rows(f"SELECT applied_xid IS NOT NULL FROM nodes WHERE node = '{second.env['CAF_NODE']}'") == [(True,)]
    assert metric(second, "feed_lag_seconds") < 2
