"""The commands of dev/stack on one folder: up, down, and what is done to a single part."""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from caf_dev import certificates, configuration, joining, processes
from caf_dev.errors import StackError
from caf_dev.parts import LOG_TAIL_LINES, POSTGRES_BIN, START_SECONDS, all_parts, environment, get_status
from caf_dev.settings import DAEMONS, PROGRAMS, REPOSITORY, Folder, Settings

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
PORT_ATTEMPTS = 5
BACK_PARTS = ("keeper", "registryd", "auditd", "eventd")


# ---- who runs it, and where ----------------------------------------------------------------------


def choose_user(folder, home, wanted):
    """The user that everything of this stack runs as: that of the stack that it joins, too."""
    places = [place.path for place in (folder, home) if place and place.path.exists()]
    owners = {place: place.stat().st_uid for place in places if place.stat().st_uid != 0}
    user = pick_user(wanted, next(iter(owners.values()), None))
    for place, owner in owners.items():
        if owner != user.pw_uid:
            raise StackError(f"{place} belongs to {pwd.getpwuid(owner).pw_name}, not to {user.pw_name}")
    return user


def pick_user(wanted, owner):
    if os.getuid() != 0:
        if wanted and find_user(wanted).pw_uid != os.getuid():
            raise StackError("only root can start a stack as another user")
        return pwd.getpwuid(os.getuid())
    user = find_user(wanted) if wanted else pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    if user.pw_uid == 0:
        raise StackError("PostgreSQL does not run as root: choose another --user")
    return user


def find_user(name):
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise StackError(f"there is no user {name}") from error


def make_folder(folder, user):
    """DIR, new or empty or a stack's own, the user's and enterable by it."""
    folder.check_name()
    if folder.path.exists() and not folder.is_stack() and any(folder.path.iterdir()):
        raise StackError(f"{folder.path} is not empty, and not a stack's folder")
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.getuid() == 0:
        os.chown(folder.path, user.pw_uid, user.pw_gid)


def copy_programs(folder, user, build):
    """Brings the programs and sql/ into DIR: the user may not be able to enter the clone."""
    missing = [name for name in PROGRAMS if not (build / "bin" / name).exists()]
    if missing:
        raise StackError(f"{build}/bin has no {', '.join(missing)}: run make first")
    folder.bin.mkdir(exist_ok=True)
    for name in PROGRAMS:
        fresh = folder.bin / f"{name}.new"
        shutil.copy(build / "bin" / name, fresh)
        fresh.chmod(0o755)
        fresh.replace(folder.bin / name)
    shutil.copytree(REPOSITORY / "sql", folder.sql, dirs_exist_ok=True)
    if os.getuid() == 0:
        give_away((folder.bin, folder.sql), user)


def give_away(trees, user):
    for tree in trees:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)


def become(user):
    """From here on nothing is done as root."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def check_enterable(folder, user):
    """Says which folder above DIR the user cannot pass."""
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    for above in reversed(folder.path.parents):
        if above.exists() and subprocess.run(["/usr/bin/test", "-x", above], check=False, **identity).returncode:
            raise StackError(f"{user.pw_name} cannot enter {above}: choose a folder elsewhere, or another --user")


def open_stack(path):
    """For a command on a stack that exists: its folder, as its own user."""
    folder = Folder(path)
    folder.check_is_stack()
    owner = pwd.getpwuid(folder.path.stat().st_uid)
    if os.getuid() not in (0, owner.pw_uid):
        raise StackError(f"{folder.path} is the stack of {owner.pw_name}")
    become(owner)
    return folder


@contextlib.contextmanager
def locked(folder):
    """One command at a time changes a stack."""
    with open(folder.path / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---- up ------------------------------------------------------------------------------------------


def up(options):
    """dev/stack up DIR: see the command's help."""
    folder = Folder(options.dir)
    home = joining.find_home(folder, options.join)
    user = choose_user(folder, home, options.user)
    check_enterable(folder, user)
    make_folder(folder, user)
    refuse_running(folder)
    copy_programs(folder, user, Path(options.build))
    become(user)
    with locked(folder), locked(home) if home else contextlib.nullcontext():
        refuse_running(folder)
        settings = merge_settings(folder, options)
        joining.settle(folder, settings, home)
        try:
            bring_up(folder, settings)
        except BaseException:
            take_down(folder)
            raise
    print(f"up: https://localhost:{settings.port} (source {folder.env_file})")


def ignore_interrupts():
    for number in INTERRUPTS:
        signal.signal(number, lambda *_: None)


def take_down(folder):
    """Ends what an up that failed, or was cut short, has started; not to be cut short itself."""
    ignore_interrupts()
    with contextlib.suppress(StackError):
        stop_all(folder)


def refuse_running(folder):
    if any(part.pid() for part in all_parts(folder).values()):
        raise StackError(f"{folder.path} is up already, or in part: dev/stack down ends what runs")


def merge_settings(folder, options):
    """What was said last time, and over it what is said now."""
    known = folder.is_stack()
    settings = folder.load() if known else Settings()
    trust_domain = settings.trust_domain
    if options.port:
        settings.port, settings.port_is_fixed = options.port, True
    settings.workers = options.workers or settings.workers
    settings.agents = options.agents or settings.agents
    settings.sets.update(parse_set(text) for text in options.set)
    if known and settings.trust_domain != trust_domain:
        raise StackError(f"the certificates of {folder.path} are of the trust domain {trust_domain}")
    return settings


def parse_set(text):
    """DAEMON.SECTION.KEY=VALUE as a pair; the daemon itself judges section, key and value."""
    name, equals, value = text.partition("=")
    words = name.split(".", 2)
    if not equals or len(words) < 3 or words[0] not in DAEMONS or "\n" in text:
        raise StackError(f"--set {text}: not DAEMON.SECTION.KEY=VALUE with a DAEMON of {', '.join(DAEMONS)}")
    return name, value


def bring_up(folder, settings):
    folder.save(settings)
    parts = all_parts(folder)
    for each in folder.made_by_us():
        each.mkdir(exist_ok=True)
    certificates.make_missing(folder, settings)
    configuration.write_configurations(folder, settings)
    until = time.monotonic() + START_SECONDS
    if not folder.is_joined():
        make_cluster(folder)
        start_servers(folder, parts, until)
    for name in BACK_PARTS:
        parts[name].start(until)
    start_frontd(folder, settings, parts["frontd"], until)
    wait_ready(folder, parts, until)
    configuration.write_env(folder, settings)


def start_servers(folder, parts, until):
    """PostgreSQL with the database as sql/ has it, and Redis. A stack that joins another finds both there."""
    for name in ("postgres", "redis"):
        parts[name].start(until)
    make_database(folder)
    migrate(folder)


def make_cluster(folder):
    """An empty PostgreSQL cluster that trusts whoever reaches its socket. Made beside its place, so that one that was
    interrupted is not taken for one."""
    if folder.postgres.exists():
        return
    fresh = folder.path / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    run([f"{POSTGRES_BIN}/initdb", "-D", fresh, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
         "--no-sync", "--no-instructions"], "initdb")
    (fresh / "pg_hba.conf").write_text("local all all trust\n")
    fresh.rename(folder.postgres)


def make_database(folder):
    """The database and its owner role, which may make roles and databases and is no superuser."""
    sql(folder, "postgres", "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'caf') THEN "
                            "CREATE ROLE caf LOGIN CREATEROLE CREATEDB; END IF; END $$")
    if not sql(folder, "postgres", "SELECT 1 FROM pg_database WHERE datname = 'caf'").strip():
        sql(folder, "postgres", "CREATE DATABASE caf OWNER caf")


def sql(folder, database, statement):
    return run([f"{POSTGRES_BIN}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", folder.run,
                "-U", "postgres", "-d", database, "-c", statement], "psql")


def migrate(folder):
    run([folder.bin / "cafctl", "migrate", "--sql", folder.sql, configuration.conninfo(folder, "caf")],
        "cafctl migrate")


def run(argv, name):
    """Runs a program to its end, also when it is cut short: initdb takes its server down itself. Returns what it printed.
    It runs in /: its user may be barred from this folder."""
    process = subprocess.Popen([str(word) for word in argv], env=environment(), cwd="/", stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode != 0:
        raise StackError(f"{name} ended with status {process.returncode}:\n{output}{errors.rstrip()}")
    return output


def start_frontd(folder, settings, frontd, until):
    """Starts it on the port asked for or on a free one; a free one that somebody took meanwhile is replaced."""
    for attempt in range(1, PORT_ATTEMPTS + 1):
        choose_port(folder, settings)
        try:
            frontd.start(until)
            return
        except StackError:
            if settings.port_is_fixed or attempt == PORT_ATTEMPTS or port_is_free(settings.port):
                raise
            settings.port = 0


def choose_port(folder, settings):
    if not settings.port_is_fixed and not (settings.port and port_is_free(settings.port)):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            settings.port = probe.getsockname()[1]
    folder.save(settings)
    configuration.write_configurations(folder, settings)


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_ready(folder, parts, until):
    """Waits for /readyz; the error shows the log of the part that ended, or else of every daemon."""
    status, body = get_status(folder, "/readyz")
    while status != 200:
        ended = [part for part in parts.values() if part.pid() is None]
        if ended:
            raise ended[0].failure("ended")
        if time.monotonic() > until:
            logs = "".join(f"\n{name}, the last {LOG_TAIL_LINES} lines:\n{parts[name].log_tail()}" for name in DAEMONS)
            raise StackError(f"/readyz was not 200 within {START_SECONDS} s: {status} {body}{logs}")
        time.sleep(processes.POLL_SECONDS)
        status, body = get_status(folder, "/readyz")


# ---- down, and single parts ----------------------------------------------------------------------


def down(options):
    """dev/stack down DIR: ends everything that runs, the part that others lean on last."""
    folder = open_stack(options.dir)
    with locked(folder):
        joining.refuse_used(folder)
        stop_all(folder)


def stop_all(folder):
    """Stops every part even when one resists; the first complaint is told when all are gone."""
    complaints = []
    for part in reversed(all_parts(folder).values()):
        try:
            part.stop()
        except StackError as error:
            complaints.append(error)
    processes.destroy(processes.using_program(folder.bin))
    processes.destroy(processes.working_in(folder.postgres))
    if complaints:
        raise complaints[0]


def stop(options):
    with part_of(options) as part:
        part.stop()


def start(options):
    with part_of(options) as part:
        part.start()


def restart(options):
    with part_of(options) as part:
        part.stop()
        part.start()


def kill(options):
    with part_of(options) as part:
        part.kill()
        part.start()


@contextlib.contextmanager
def part_of(options):
    folder = open_stack(options.dir)
    joining.refuse_shared(folder, options.name)
    with locked(folder):
        yield all_parts(folder)[options.name]


def cert(options):
    """dev/stack cert DIR SPIFFE_ID OUT: the files belong to whoever asked."""
    folder = Folder(options.dir)
    folder.check_is_stack()
    try:
        certificates.issue_client(certificates.issuing_authority(folder), options.spiffe_id, options.out)
    except (OSError, ValueError) as error:
        raise StackError(f"no certificate for {options.spiffe_id}: {error}") from error
