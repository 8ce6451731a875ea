"""Processes that outlive the command that started them: start, recognise, signal, wait.

A process is recognised by a word of its command line that only this stack's own process can carry, so that a number
that the kernel has given to somebody else meanwhile is never signalled.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

POLL_SECONDS = 0.02


def launch(argv, log, environment, folder):
    """Starts a program in a session of its own, its output appended to log. Returns its number."""
    with open(log, "ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                                   cwd=folder, start_new_session=True)
    process.returncode = 0  # it is init's to reap once this command has ended: no warning, no wait
    return process.pid


def command_line(pid):
    """The words of a process' command line; none when there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def status(pid):
    """A process' state letter and its parent's number; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def is_alive(pid):
    """Whether a process runs; one that has ended and was not reaped does not."""
    reap(pid)
    found = status(pid)
    return found is not None and found[0] not in "ZX"


def reap(pid):
    """Takes the exit status if the process is this command's own child."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def all_pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def children(pid):
    """The processes whose parent this is, just now."""
    return [child for child in all_pids() if (status(child) or ("", 0))[1] == pid]


def using_program(folder):
    """The processes that run a program of this folder."""
    return [pid for pid in all_pids() if command_line(pid)[:1] and command_line(pid)[0].startswith(f"{folder}/")]


def working_in(folder):
    """The processes whose working directory this is."""
    return [pid for pid in all_pids() if working_directory(pid) == str(folder)]


def working_directory(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def send(pid, number):
    """Sends a signal; one that comes too late is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_gone(pids, seconds):
    """Waits until none of them runs; returns those that still do."""
    until = time.monotonic() + seconds
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        left = [pid for pid in left if is_alive(pid)]
    return left


def destroy(pids):
    """Ends them at once, and waits until the kernel has."""
    for pid in pids:
        send(pid, signal.SIGKILL)
    wait_gone(pids, 5)
