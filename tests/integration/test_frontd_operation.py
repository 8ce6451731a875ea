"""What an operator sees of frontd: whether it is ready, and what it logs."""

import os
import signal

from harness import check_error, wait_for


def test_ready_means_that_the_keeper_answers(stack):
    """One that holds its connections and answers nothing is not there."""
    client = stack.client()
    assert client.get("/readyz").status_code == 200
    os.kill(stack.pid("keeper"), signal.SIGSTOP)
    try:
        check_error(client.get("/readyz"), 503, "UNAVAILABLE")
        health = client.get("/health")
        assert (health.status_code, health.json()["checks"]["keeper"]["status"]) == (503, "unreachable")
    finally:
        os.kill(stack.pid("keeper"), signal.SIGCONT)
    wait_for(lambda: client.get("/readyz").status_code == 200)


def test_the_workers_log_what_the_configuration_says(make_stack):
    stack = make_stack(sets=("frontd.log.level=warn",))
    stack.restart("registryd")
    wait_for(lambda: "backend lost" in stack.log("frontd"))
    assert "msg=accepting" not in stack.log("frontd")
