"""auth.mtls_failure: no certificate, whatever is in it, is refused without its event (contract, Security events)."""

import secrets
import ssl

import pytest
from caf_dev.authority import Issuer, uri
from harness import wait_for

CLAIMS = {
    "what JSON spells with an escape": '"' * 2000,
    "a long one": "a" * 2000,
    "longer than any SPIFFE ID": "a" * 9000,
    "a control character": "a\x01b",
}


@pytest.mark.parametrize("case", CLAIMS)
def test_no_claim_escapes_its_event(stack, case):
    mark = secrets.token_hex(8)
    claim = f"spiffe://{mark}/{CLAIMS[case]}"
    crt, key = stack.cert("", issuer=Issuer.root("somebody"), names=[uri(claim)])
    before = len(stack.events("_system", event_type="auth.mtls_failure"))
    with stack.connection(crt, key) as connection:
        with pytest.raises(ssl.SSLError):
            connection.read()
    event = wait_for(lambda: stack.events("_system", event_type="auth.mtls_failure")[before:])[0]
    assert event["details"]["reason"]
    assert event["details"].get("claimed_spiffe_id", claim)[:1000] == claim[:1000]
