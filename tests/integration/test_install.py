"""What `make install` puts in place: programs, units that systemd accepts, users, folders, complete samples."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import BUILD, REPOSITORY

DAEMONS = ("keeper", "frontd", "registryd", "auditd", "eventd")
USERS = {"keeper": "caf_key", "frontd": "caf_front", "registryd": "caf_registry", "auditd": "caf_audit",
         "eventd": "caf_event"}
UNITS = ["caf.target", "caf-metrics.socket", *(f"caf-{name}.{kind}" for name in DAEMONS for kind in ("service", "socket"))]


def install(prefix, sysconf, destdir=""):
    """make install of what is built: nothing is compiled."""
    words = ["make", "-s", "-o", "all", "install", f"BUILD={BUILD}", f"DESTDIR={destdir}", f"PREFIX={prefix}",
             f"SYSCONF={sysconf}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "SAN")}
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run(*argv, **environment):
    """A program's exit status and everything that it printed."""
    done = subprocess.run([str(word) for word in argv], env={**os.environ, **environment}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An installation into a DESTDIR, as a package is made of."""
    destdir = tmp_path_factory.mktemp("image")
    install("/usr", "/etc/caf", destdir)
    return destdir


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An installation for use where it is, whose paths exist."""
    place = tmp_path_factory.mktemp("place")
    install(place / "usr", place / "etc/caf")
    return place


def test_everything_is_in_place(image):
    files = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_file()}
    assert files >= {f"usr/libexec/caf/{name}" for name in (*DAEMONS, "frontd-worker")}
    assert files >= {f"usr/lib/systemd/system/{unit}" for unit in UNITS}
    assert files >= {f"usr/share/caf/examples/{name}.conf" for name in DAEMONS}
    assert files >= {f"etc/caf/{name}.conf" for name in DAEMONS}
    assert files >= {"usr/bin/cafctl", "usr/lib/sysusers.d/caf.conf", "usr/lib/tmpfiles.d/caf.conf",
                     "usr/lib/systemd/system/caf-.service.d/10-common.conf", "usr/share/caf/sql/selftest.sql"}
    assert not [name for name in files if name.endswith(".new")]


def test_no_file_names_the_place_that_it_was_made_in(image):
    texts = [path for top in ("etc", "usr/lib", "usr/share") for path in (image / top).rglob("*") if path.is_file()]
    assert texts
    for path in texts:
        text = path.read_text()
        assert str(image) not in text and str(REPOSITORY) not in text
        assert not re.search(r"@[A-Z]+@", text), path


# ---- units ---------------------------------------------------------------------------------------


def verify(place):
    folder = place / "usr/lib/systemd/system"
    return run("/usr/bin/systemd-analyze", "verify", *(folder / unit for unit in UNITS), SYSTEMD_UNIT_PATH=f"{folder}:")


def test_systemd_finds_nothing_in_the_units(place):
    assert verify(place) == (0, "")


@pytest.mark.parametrize("name, old, new", [
    ("caf-eventd.service", "libexec/caf/eventd", "libexec/caf/nothing"),
    ("caf-.service.d/10-common.conf", "ProtectHome", "ProtectHouse"),
    ("caf-auditd.socket", "0600", "rw"),
])
def test_the_check_of_units_can_fail(place, tmp_path, name, old, new):
    shutil.copytree(place / "usr/lib", tmp_path / "usr/lib")
    unit = tmp_path / "usr/lib/systemd/system" / name
    text = unit.read_text()
    assert old in text
    unit.write_text(text.replace(old, new))
    assert verify(tmp_path) != (0, "")


def directives(path):
    """A unit's settings: section.key to the list of its values."""
    found, section = {}, None
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def unit(image, name):
    return directives(image / "usr/lib/systemd/system" / name)


@pytest.mark.parametrize("name", DAEMONS)
def test_each_daemon_is_a_user_of_its_own_under_its_own_socket(image, name):
    service = unit(image, f"caf-{name}.service")
    assert service["Service.User"] == service["Service.Group"] == [USERS[name]]
    assert service["Service.ExecStart"] == [f"/usr/libexec/caf/{name} -c /etc/caf/{name}.conf"]
    assert service["Unit.Requires"] == [f"caf-{name}.socket"]


@pytest.mark.parametrize("name", ("keeper", "registryd", "auditd", "eventd"))
def test_a_back_daemons_socket_is_its_clients_alone(image, name):
    listener = unit(image, f"caf-{name}.socket")
    path, = listener["Socket.ListenStream"]
    assert path == sample(image, name)["ipc"]["socket"] == sample(image, "frontd")["backends"][name]
    assert listener["Socket.SocketUser"] == listener["Socket.SocketGroup"] == [USERS["frontd"]]
    assert listener["Socket.SocketMode"] == ["0600"]
    assert sample(image, name)["ipc"]["peer_users"] == USERS["frontd"]


def test_frontds_socket_is_where_frontd_listens(image):
    listen = sample(image, "frontd")["listen"]
    assert unit(image, "caf-frontd.socket")["Socket.ListenStream"] == [f"{listen['address']}:{listen['port']}"]


def test_the_metrics_socket_is_where_frontd_answers_for_them(image):
    listener = unit(image, "caf-metrics.socket")
    assert listener["Socket.ListenStream"] == [sample(image, "frontd")["admin"]["listen"]]
    assert listener["Socket.Service"] == ["caf-frontd.service"]
    assert (listener["Socket.SocketGroup"], listener["Socket.SocketMode"]) == (["caf_metrics"], ["0660"])
    assert "Socket.SocketUser" not in listener
    wanted = unit(image, "caf-frontd.service")["Unit.Wants"] + unit(image, "caf.target")["Unit.Wants"]
    assert sum("caf-metrics.socket" in line.split() for line in wanted) == 2


def test_only_the_keeper_is_given_the_key(image):
    with_credentials = [name for name in DAEMONS if "LoadCredential" in
                        (image / f"usr/lib/systemd/system/caf-{name}.service").read_text()]
    assert with_credentials == ["keeper"]
    credential, = unit(image, "caf-keeper.service")["Service.LoadCredential"]
    name, _, path = credential.partition(":")
    assert name == sample(image, "keeper")["keys"]["files"]
    assert path == "/etc/caf/tls/server.key"


def test_nothing_goes_down_with_another(image):
    for name in DAEMONS:
        service = unit(image, f"caf-{name}.service")
        bound = [value for key in ("Requires", "BindsTo", "Requisite", "PartOf") for value in
                 service.get(f"Unit.{key}", [])]
        assert bound == [f"caf-{name}.socket"]
    common = unit(image, "caf-.service.d/10-common.conf")
    assert common["Unit.PartOf"] == ["caf.target"]
    assert common["Unit.StartLimitIntervalSec"] == ["0"]
    assert common["Service.Restart"] == ["always"]
    assert "Service.PrivateUsers" not in common


def test_the_service_manager_waits_longer_than_a_drain(image):
    seconds, = unit(image, "caf-.service.d/10-common.conf")["Service.TimeoutStopSec"]
    for name in DAEMONS:
        assert int(seconds.removesuffix("s")) > int(sample(image, name)["service"]["stop_seconds"]) + 1


# ---- users and folders ---------------------------------------------------------------------------


def test_users_without_shell_or_home(image, tmp_path):
    shutil.copytree(image / "usr/lib", tmp_path / "usr/lib")
    (tmp_path / "etc").mkdir()
    status, text = run("/usr/bin/systemd-sysusers", "--root", tmp_path)
    assert status == 0, text
    users = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert {user[0] for user in users} == set(USERS.values())
    assert len({user[2] for user in users}) == len({user[3] for user in users}) == len(users)
    assert {(user[5], user[6]) for user in users} == {("/nonexistent", "/usr/sbin/nologin")}


def test_folders_and_who_may_read_what(image):
    lines = [line.split() for line in (image / "usr/lib/tmpfiles.d/caf.conf").read_text().splitlines()
             if line and not line.startswith("#")]
    wanted = [["d", "/run/caf", "0750", "root", "caf_front", "-"],
              ["z", "/etc/caf/tls/server.key", "0600", "root", "root", "-"],
              *(["z", f"/etc/caf/{name}.conf", "0640", "root", USERS[name], "-"] for name in DAEMONS)]
    assert sorted(lines) == sorted(wanted)


# ---- sample configurations -----------------------------------------------------------------------


def sample_file(image, name):
    return image / "usr/share/caf/examples" / f"{name}.conf"


def sample(image, name):
    """The sample as another parser of INI files reads it."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=True)
    parser.optionxform = str
    parser.read(sample_file(image, name))
    return parser


def options(name):
    """The options of a daemon by its own word: (section, key) to (default, help)."""
    status, text = run(BUILD / "bin" / name, "-o")
    assert status == 0
    found = re.findall(r"(?m)^(\w+)\.(\S+) = (.*)\n    ([^:]*): (.*)$", text)
    assert 2 * len(found) == text.count("\n")
    return {(section, key): (default.partition("|")[0] if kind == "choice" else default, meaning)
            for section, key, default, kind, meaning in found}


@pytest.mark.parametrize("name", DAEMONS)
def test_a_sample_holds_every_option_with_its_default(image, name):
    parser = sample(image, name)
    given = {(section, key): parser[section][key] for section in parser.sections() for key in parser[section]}
    assert given == {pair: default for pair, (default, _) in options(name).items() if pair[1] != "*"}
    text = sample_file(image, name).read_text()
    assert all(meaning in text for _, meaning in options(name).values())


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_reads_its_sample_as_its_defaults(image, name):
    program = BUILD / "bin" / name
    status, defaults = run(program, "-p", "-c", "/dev/null")
    assert status == 0 and "[log]" in defaults
    assert run(program, "-p", "-c", sample_file(image, name)) == (0, defaults)


def test_operators_are_shown_as_comments(image):
    text = sample_file(image, "frontd").read_text()
    lines = text.partition("[operators]\n")[2].partition("\n[")[0].strip().splitlines()
    assert all(line.startswith("#") for line in lines)
    assert lines[-2:] == ["# acme/admin = admin", "# acme/* = auditor"]


def test_the_options_tables_hold_nothing_that_no_sample_shows(image):
    """The tables as text, beside what the programs say of themselves."""
    shown = {(section, key) for name in DAEMONS for section, key in options(name)}
    tables = [path for path in REPOSITORY.glob("*/*options*.def")]
    assert len(tables) >= len(DAEMONS)
    for table in tables:
        for section, key, kind in re.findall(r"(?m)^OPTION\((\w+), (\w+), (\w+),", table.read_text()):
            assert (section, "*" if kind == "MAP" else key) in shown, table


def test_an_operators_file_is_left_alone(image, tmp_path):
    own = tmp_path / "etc/caf/registryd.conf"
    own.parent.mkdir(parents=True)
    own.write_text("[log]\nlevel = debug\n")
    install("/usr", "/etc/caf", tmp_path)
    assert own.read_text() == "[log]\nlevel = debug\n"
    assert (own.parent / "eventd.conf").read_text() == sample_file(image, "eventd").read_text()
    assert (tmp_path / "usr/share/caf/examples/registryd.conf").read_text() == \
        sample_file(image, "registryd").read_text()
