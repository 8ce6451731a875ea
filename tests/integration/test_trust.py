"""What a configured client CA vouches for (contract, Listening and identity)."""

import os
import signal

from harness import check_registered, wait_for


def test_an_intermediate_alone_is_a_client_ca(make_stack):
    """Whoever trusts one issuer only need not trust its root, and with it whatever else the root signs."""
    stack = make_stack()
    agent, bundle = stack.agent(), stack.folder.ca_bundle.read_text()
    agent.client.get("/livez")  # made while the whole bundle verifies the server
    issuing, end, _ = bundle.partition("-----END CERTIFICATE-----\n")
    stack.folder.ca_bundle.write_text(issuing + end)
    os.kill(stack.pid("frontd"), signal.SIGHUP)
    wait_for(lambda: "msg=reloaded" in stack.log("frontd"))
    stack.folder.ca_bundle.write_text(bundle)
    check_registered(stack.client(agent.crt, agent.key).post("/v1/mesh/register", json={"hostname": "h"}), 201)
