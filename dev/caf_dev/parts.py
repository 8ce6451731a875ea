"""The seven parts of a stack: how each is started, when it has started, how it is stopped and killed."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

from caf_dev import processes
from caf_dev.errors import StackError
from caf_dev.settings import DAEMONS, replace_text

POSTGRES_BIN = "/usr/lib/postgresql/15/bin"
START_SECONDS = 30
STOP_SECONDS = 20
ORPHAN_SECONDS = 15
PROBE_SECONDS = 5
LOG_TAIL_LINES = 40
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=0:exitcode=99:detect_leaks=1",
    "UBSAN_OPTIONS": "abort_on_error=0:exitcode=99:print_stacktrace=1",
}


class Part:
    """One process of a stack, with the children that it has."""

    stop_signal = signal.SIGTERM

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder

    def argv(self):
        raise NotImplementedError

    def mark(self):
        """The word of the command line by which this part's own process is recognised."""
        return str(self.folder.configuration(self.name))

    def ready(self):
        """Whether it takes work, as its start promises; False while it does not."""
        return accepts(self.folder.socket(self.name))

    def before_start(self):
        """Clears away what a killed predecessor left."""

    def pid(self):
        """The number of the running process; None when it does not run."""
        try:
            pid = int(self.folder.pid_file(self.name).read_text())
        except (OSError, ValueError):
            return None
        return pid if processes.is_alive(pid) and self.mark() in processes.command_line(pid) else None

    def launch(self):
        self.before_start()
        pid = processes.launch(self.argv(), self.folder.log_file(self.name), environment(), self.folder.path)
        replace_text(self.folder.pid_file(self.name), f"{pid}\n")
        return pid

    def start(self, until=None):
        """Starts it and waits until it is ready; nothing when it runs."""
        if self.pid() is not None:
            return
        pid = self.launch()
        self.wait_ready(pid, until or time.monotonic() + START_SECONDS)

    def wait_ready(self, pid, until):
        while not self.ready():
            if not processes.is_alive(pid):
                raise self.failure("ended at its start")
            if time.monotonic() > until:
                raise self.failure("did not become ready in time")
            time.sleep(processes.POLL_SECONDS)

    def failure(self, what):
        return StackError(f"{self.name} {what}; the end of {self.folder.log_file(self.name)}:\n{self.log_tail()}")

    def log_tail(self):
        try:
            lines = self.folder.log_file(self.name).read_text(errors="replace").splitlines()
        except OSError as error:
            return f"  ({error})"
        return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])

    def stop(self):
        """Ends it in order; one that does not end in time is destroyed, and said to be at fault."""
        pid = self.pid()
        if pid is not None:
            family = [pid, *processes.children(pid)]
            processes.send(pid, self.stop_signal)
            self.leave_none(family, STOP_SECONDS, "after it was told to stop")
        self.forget()

    def kill(self):
        """SIGKILL: the process is gone, and its children have noticed."""
        pid = self.pid()
        if pid is not None:
            family = [pid, *processes.children(pid)]
            processes.send(pid, signal.SIGKILL)
            self.leave_none(family, ORPHAN_SECONDS, "after its parent was killed")
        self.forget()

    def leave_none(self, family, seconds, when):
        left = processes.wait_gone(family, seconds)
        if left:
            words = " ".join(processes.command_line(left[0]))
            processes.destroy(left)
            raise self.failure(f"still ran {seconds} s {when} (process {left[0]}: {words})")

    def forget(self):
        with contextlib.suppress(FileNotFoundError):
            self.folder.pid_file(self.name).unlink()


class Daemon(Part):
    """One of caf's own: started with -c FILE, ready when its socket accepts."""

    def argv(self):
        return [str(self.folder.bin / self.name), "-c", str(self.folder.configuration(self.name))]


class Frontd(Daemon):
    """The supervisor and its workers: ready when /livez answers 200 over TLS."""

    def ready(self):
        return get_status(self.folder, "/livez")[0] == 200


class Redis(Part):
    def argv(self):
        return ["/usr/bin/redis-server", str(self.folder.configuration("redis"))]

    def ready(self):
        return ask(self.folder.socket("redis"), b"PING\r\n").startswith(b"+PONG")


class Postgres(Part):
    stop_signal = signal.SIGINT  # a fast shutdown: open sessions are ended

    def argv(self):
        return [f"{POSTGRES_BIN}/postgres", "-D", str(self.folder.postgres), "-c", "listen_addresses=",
                "-c", f"unix_socket_directories={self.folder.run}", "-c", "fsync=on", "-c", "max_connections=200"]

    def mark(self):
        return str(self.folder.postgres)

    def before_start(self):
        """A server process that outlives a killed postmaster holds the shared memory: it must be gone first. The lock
        files are then stale, but PostgreSQL does not see it while nobody has reaped the postmaster."""
        processes.destroy(processes.working_in(self.folder.postgres))
        for lock in (self.folder.postgres / "postmaster.pid", self.folder.run / ".s.PGSQL.5432.lock"):
            with contextlib.suppress(FileNotFoundError):
                lock.unlink()

    def ready(self):
        probe = [f"{POSTGRES_BIN}/pg_isready", "-q", "-h", str(self.folder.run), "-d", "caf", "-U", "caf"]
        return subprocess.run(probe, env=environment(), cwd="/", check=False).returncode == 0


def all_parts(folder):
    """Every part by its name, in the order of their start. A stack that joined another has neither PostgreSQL nor Redis."""
    parts = [] if folder.is_joined() else [Postgres("postgres", folder), Redis("redis", folder)]
    parts += [Frontd(name, folder) if name == "frontd" else Daemon(name, folder) for name in DAEMONS]
    return {part.name: part for part in parts}


def environment():
    """What every part finds in its environment: nothing of the caller's."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "TZ": "UTC",
            "USER": str(os.getuid()), **SANITIZERS}


def accepts(path):
    """Whether a Unix socket takes a connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PROBE_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def ask(path, question):
    """Sends a few bytes to a Unix socket and returns the beginning of the answer; none when nobody is there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PROBE_SECONDS)
        try:
            client.connect(str(path))
            client.sendall(question)
            return client.recv(256)
        except OSError:
            return b""


def get_status(folder, path):
    """GET over TLS: the HTTP status and the body; 0 and the reason when there was no answer."""
    settings = folder.load()
    context = ssl.create_default_context(cafile=folder.ca_bundle)
    if settings.sets.get("frontd.listen.client_cert") == "required":
        context.load_cert_chain(folder.operators / "auditor.crt", folder.operators / "auditor.key")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                         urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://localhost:{settings.port}{path}", timeout=PROBE_SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)
