"""dev/stack up DIR --join DIR2: a second node on another stack's PostgreSQL, Redis, CA and trust domain."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import BUILD, Stack, processes
from test_stack import KEYS, complaint, running_in

DAEMONS = ("keeper", "registryd", "auditd", "eventd", "frontd")


@pytest.fixture(scope="module")
def home():
    made = Stack("--agents", 1, sets=("frontd.identity.trust_domain=two.example",)).up()
    yield made
    made.close()


@pytest.fixture(scope="module")
def joined(home):
    made = Stack("--agents", 2, join=home).up()
    yield made
    made.close()


def test_the_joined_one_has_all_daemons_and_no_server(home, joined):
    for name in DAEMONS:
        assert joined.pid(name) != home.pid(name)
    assert not {"postgres", "redis", "ca"} & {path.name for path in joined.dir.iterdir()}
    assert joined.owner() == home.owner() and joined.port != home.port


def test_env_has_the_same_members(home, joined):
    assert set(joined.env) == KEYS
    shared = {"CAF_CA", "CAF_CA_KEY", "CAF_TRUST_DOMAIN", "PGHOST", "PGDATABASE", "PGUSER", "REDIS_SOCKET"}
    assert {key for key in KEYS if joined.env[key] == home.env[key]} == shared
    assert (home.env["CAF_NODE"], joined.env["CAF_NODE"]) == (home.dir.name, joined.dir.name)


def test_certificates_are_good_on_both(home, joined):
    assert (joined.folder.tls / "server-p256.crt").read_bytes() != (home.folder.tls / "server-p256.crt").read_bytes()
    for here in (home, joined):
        pair = [here.env["CAF_AUDITOR_CERT"], here.env["CAF_AUDITOR_KEY"]]
        assert [there.client(*pair).get("/v1/security/events").status_code for there in (home, joined)] == [200, 200]


@pytest.mark.parametrize("command", ["stop", "start", "restart", "kill"])
@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_what_is_the_homes_is_left_alone(home, joined, command, name):
    before = home.pid(name)
    assert f"it has joined {home.dir}, whose {name} it uses" in complaint(joined, command, joined.dir, name)
    assert home.pid(name) == before and home.runs(name)


def test_the_home_does_not_go_down_under_it(home, joined):
    assert f"dev/stack down {joined.dir} comes first" in complaint(home, "down", home.dir)
    assert home.client().get("/readyz").status_code == joined.client().get("/readyz").status_code == 200


def test_down_and_up_again_joined(home, joined):
    before = home.pids()
    name, port, url = joined.env["CAF_NODE"], joined.port, joined.env["PGHOST"]
    joined.down()
    assert running_in(joined.dir) == [] and home.pids() == before
    joined.command("up", joined.dir, "--build", BUILD)
    again = dict(line.split("=", 1) for line in joined.folder.env_file.read_text().splitlines())
    assert again == joined.env and (again["CAF_NODE"], joined.port, again["PGHOST"]) == (name, port, url)
    assert home.pids() == before


def test_it_needs_its_home_up(make_stack):
    home = make_stack("--agents", 1)
    joined = make_stack("--agents", 1, join=home)
    joined.down()
    home.down()
    assert f"{home.dir} is down" in complaint(joined, "up", joined.dir, "--build", BUILD)
    home.up()
    joined.up()
    assert joined.client().get("/readyz").status_code == 200


def test_a_home_made_anew_is_another(make_stack):
    home = make_stack("--agents", 1)
    joined = make_stack("--agents", 1, join=home)
    joined.down()
    home.down()
    for path in home.dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    home.up()
    assert "it was made anew" in complaint(joined, "up", joined.dir, "--build", BUILD)
    shutil.rmtree(joined.dir)
    joined.dir.mkdir()
    joined.up()


def test_two_folders_of_one_name_are_two_nodes(home):
    parent = Path(tempfile.mkdtemp(prefix="caf-"))
    parent.chmod(0o755)
    twin = parent / home.dir.name
    try:
        home.command("up", twin, "--join", home.dir, "--build", BUILD, "--agents", 1)
        assert f"CAF_NODE={home.dir.name}-2" in (twin / "env").read_text().splitlines()
    finally:
        home.command("down", twin)
        shutil.rmtree(parent)


def test_wrong_words(home, joined, tmp_path):
    empty = tmp_path / "empty"
    for folder, join, words, answer in (
            (empty, empty, (), "is not a stack's folder"),
            (home.dir, home.dir, (), "has a database of its own"),
            (home.dir, joined.dir, (), "has a database of its own"),
            (empty, joined.dir, (), f"has joined {home.dir}: join that one"),
            (joined.dir, joined.dir, (), f"has joined {home.dir}")):
        assert answer in complaint(home, "up", folder, "--join", join, "--build", BUILD, *words)
    assert not empty.exists()


def test_another_trust_domain_is_refused(home):
    folder = Path(tempfile.mkdtemp(prefix="caf-"))
    try:
        text = complaint(home, "up", folder, "--join", home.dir, "--build", BUILD, "--set",
                         "frontd.identity.trust_domain=other.example")
        assert f"the trust domain of {home.dir} is two.example" in text
    finally:
        shutil.rmtree(folder)


def test_another_user_is_refused(home):
    folder = Path(tempfile.mkdtemp(prefix="caf-"))
    try:
        text = complaint(home, "up", folder, "--join", home.dir, "--build", BUILD, "--user", "daemon")
        reason = f"{home.dir} belongs to {home.owner().pw_name}" if os.getuid() == 0 else "only root"
        assert reason in text
    finally:
        shutil.rmtree(folder)


def test_a_killed_node_goes_down_in_order(make_stack, home):
    """Nothing of its home dies with it, or with its down."""
    joined = make_stack("--agents", 1, join=home)
    before = home.pids()
    processes.destroy([joined.pid(name) for name in DAEMONS])
    joined.down()
    assert running_in(joined.dir) == [] and home.pids() == before
    subprocess.run(["psql", "-Xqc", "SELECT 1"], env={**os.environ, **home.env}, check=True, capture_output=True)
    joined.up()
