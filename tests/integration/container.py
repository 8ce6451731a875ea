"""A Debian system of its own, booted by systemd in a container: what a host is to caf, without touching this one.

Its root file system is made by debootstrap from the mirror that this host's apt uses, through the same proxies. That takes
a minute and more, so it is kept as one archive in the folder that CAF_TEST_ROOTS names, where it does; each container
is unpacked from it anew. Root alone can boot one.
"""

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from harness import processes

SUITE = "bookworm"
SYSTEM = ("systemd", "systemd-sysv", "dbus")
BOOT_SECONDS = 60
OFF_SECONDS = 60
TOLD = 4000
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def impossible(why):
    """This is asked for by a person, who wants to know: no skip."""
    pytest.fail(f"a container cannot be booted here: {why}", pytrace=False)


def run(*argv, **environment):
    """What a program of this host printed."""
    try:
        done = subprocess.run([str(word) for word in argv], env={**os.environ, **environment}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    except FileNotFoundError:
        impossible(f"there is no {argv[0]}: `make deps` installs it")
    if done.returncode:
        impossible(f"{argv[0]} ended with status {done.returncode}:\n{done.stdout[-TOLD:]}")
    return done.stdout


# ---- the root file system ------------------------------------------------------------------------


def mirror():
    """Where this host's apt gets the suite from."""
    lines = run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)",
                "Created-By: Packages").splitlines()
    found = [line.split()[0] for line in lines if line.split()[1:] == [SUITE, "main"]]
    if not found:
        impossible(f"this host's apt has no source for {SUITE} main")
    return found[0]


def apts_way(folder):
    """How this host's apt gets there, for wget, which is what debootstrap uses."""
    def setting(name):
        return run("apt-config", "dump", "--format", "%v", name)

    ways = {"http_proxy": setting("Acquire::http::Proxy"), "https_proxy": setting("Acquire::https::Proxy")}
    authorities = setting("Acquire::https::CAInfo")
    if authorities:
        ways["WGETRC"] = str(folder / "wgetrc")
        (folder / "wgetrc").write_text(f"ca_certificate = {authorities}\n")
    return {name: value for name, value in ways.items() if value}


def make_root(archive, packages):
    """debootstrap, packed; under its name only when it is whole."""
    with tempfile.TemporaryDirectory(prefix="caf-root-", dir=archive.parent) as folder:
        root, packed = Path(folder) / "root", Path(folder) / archive.name
        run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, root, mirror(),
            **apts_way(Path(folder)))
        run("tar", "--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "-cf", packed, "-C", root, ".")
        packed.rename(archive)


def unpack_root(folder, packages):
    """A new root file system with these packages, from the archive that is kept where the environment says so."""
    kept = Path(os.environ.get("CAF_TEST_ROOTS", folder))
    kept.mkdir(parents=True, exist_ok=True)
    number = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    archive, root = kept / f"{SUITE}-{number}.tar", folder / "root"
    if not archive.exists():
        make_root(archive, packages)
    root.mkdir()
    run("tar", "--numeric-owner", "-xpf", archive, "-C", root)
    return root


# ---- booted --------------------------------------------------------------------------------------


class Container:
    """One booted system. It has a network of its own, with nobody else in it."""

    def __init__(self, packages):
        if os.getuid() != 0:
            impossible("it needs root")
        self.folder = Path(tempfile.mkdtemp(prefix="caf-boot-"))
        self.log = self.folder / "console"
        self.nspawn = self.init = None
        try:
            self.root = unpack_root(self.folder, (*SYSTEM, *packages))
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self.boot()

    def __exit__(self, *_):
        self.close()

    def boot(self):
        """Switches it on; returns when systemd has started all that it was going to."""
        try:
            self.power_on()
        except BaseException:
            self.close()
            raise
        return self

    def power_on(self):
        argv = ["setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "-q", "-D", self.root, "--machine=caf-test",
                "--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--resolv-conf=off",
                "--timezone=off", "--console=pipe", "--system-call-filter=@memlock", "-b"]
        with open(self.log, "wb") as log:
            self.nspawn = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + BOOT_SECONDS
        while not self.is_up():
            if self.nspawn.poll() is not None or time.monotonic() > until:
                impossible("systemd-nspawn said:\n" + self.log.read_text(errors="replace")[-TOLD:])
            time.sleep(processes.POLL_SECONDS)

    def is_up(self):
        started = processes.children(self.nspawn.pid)
        if not started:
            return False
        self.init = started[0]
        done = self.run("systemctl is-system-running", check=False)
        return done.stdout.strip() in ("running", "degraded")

    def power_off(self):
        """In order, as its power button would; one that does not go off in time is destroyed, and at fault."""
        if self.nspawn is None or self.nspawn.poll() is not None:
            return
        self.nspawn.send_signal(signal.SIGTERM)
        try:
            self.nspawn.wait(OFF_SECONDS)
        except subprocess.TimeoutExpired:
            processes.destroy([*processes.children(self.nspawn.pid), self.nspawn.pid])
            raise

    def close(self):
        """Switches it off and removes it."""
        try:
            self.power_off()
        finally:
            shutil.rmtree(self.folder)

    # -- in it

    def run(self, script, check=True):
        """Runs a shell's script in it as root; what it printed, errors too."""
        argv = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "env", "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "sh", "-euc",
                script]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False)
        assert not check or done.returncode == 0, f"{script}: status {done.returncode}\n{done.stdout}"
        return done

    def ask(self, script):
        """What a script printed, without the line's end."""
        return self.run(script).stdout.strip()

    def file(self, path):
        """A file of its root file system, as this host sees it."""
        return self.root / path.lstrip("/")

    @contextlib.contextmanager
    def network(self):
        """What this thread opens meanwhile, it opens in the container's network."""
        with open("/proc/thread-self/ns/net", "rb") as here, open(f"/proc/{self.init}/ns/net", "rb") as there:
            enter(there)
            try:
                yield
            finally:
                enter(here)


def enter(namespace):
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
