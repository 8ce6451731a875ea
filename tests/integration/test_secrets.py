"""The server's private keys are in the keeper and nowhere else: not in a worker's or the supervisor's memory, core or
descriptors. The same search does find them in the keeper.

The programs are those that ship, without sanitizers: a sanitizer's memory is terabytes of nothing, which no debugger
writes into a core."""

import functools
import os
import re
import subprocess
from pathlib import Path

import pytest
from caf_dev.certificates import SERVER_KEYS
from cryptography.hazmat.primitives import serialization
from harness import REPOSITORY, Stack, processes, unique

PLAIN_BUILD = Path(os.environ.get("CAF_PLAIN_BUILD", REPOSITORY / "build"))
BLOCK = 1 << 22
CAP_SYS_PTRACE = 19
PRIVATE_FORMATS = (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)


def secret_numbers(key):
    """The private numbers of a key: any one of them gives it away."""
    numbers = key.private_numbers()
    if hasattr(numbers, "private_value"):
        return {"scalar": numbers.private_value}
    return {name: getattr(numbers, name) for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp")}


def needles(folder):
    """What to look for: every private number in both byte orders, and the text of the PEM files."""
    found = {}
    for name in SERVER_KEYS:
        pem = (folder.tls / f"{name}.key").read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        for number, value in secret_numbers(key).items():
            length = (value.bit_length() + 7) // 8
            found[f"{name} {number}, big endian"] = value.to_bytes(length, "big")
            found[f"{name} {number}, little endian"] = value.to_bytes(length, "little")
        for kind in PRIVATE_FORMATS:
            text = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
            for number, line in enumerate(text.splitlines()[1:-1]):
                if len(line) == 64 and number:
                    found[f"{name} {kind.name} line {number}"] = line
    return found


def may_look():
    """Whether the kernel lets these tests look into a process that is not dumpable: CAP_SYS_PTRACE."""
    effective = re.search(r"(?m)^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())
    return bool(int(effective[1], 16) >> CAP_SYS_PTRACE & 1)


def looking(test):
    """Who may not look shows that he may not: then nobody of his kind finds a key in there."""
    @functools.wraps(test)
    def run(busy, *rest, **named):
        if may_look():
            return test(busy, *rest, **named)
        for pid in front(busy):
            with pytest.raises(PermissionError):
                open(f"/proc/{pid}/mem", "rb")
        return None
    return run


class Search:
    """Looks for the needles in a stream of blocks, also where one spans two blocks."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.overlap = max(map(len, wanted.values())) - 1
        self.tail, self.end = b"", None
        self.found, self.searched = set(), 0

    def feed(self, start, block):
        joined = (self.tail if start == self.end else b"") + block
        self.found |= {name for name, needle in self.wanted.items() if needle in joined}
        self.tail, self.end = joined[-self.overlap:], start + len(block)
        self.searched += len(block)


def mappings(pid):
    """The readable stretches of a process' memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        bounds, rights = line.split()[:2]
        if "r" in rights and "[v" not in line:
            yield tuple(int(bound, 16) for bound in bounds.split("-"))


def search_memory(pid, wanted):
    search = Search(wanted)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in mappings(pid):
            for at in range(start, end, BLOCK):
                memory.seek(at)
                search.feed(at, memory.read(min(BLOCK, end - at)))
    return search


def search_file(path, wanted):
    search = Search(wanted)
    with open(path, "rb") as file:
        while (block := file.read(BLOCK)):
            search.feed(file.tell() - len(block), block)
    return search


def search_core(pid, wanted, folder):
    """The core that the debugger writes of a running process, with the memory that asked to be left out of cores."""
    prefix = folder / unique("core")
    done = subprocess.run(["gcore", "-a", "-o", prefix, str(pid)], capture_output=True, text=True, check=False)
    core = Path(f"{prefix}.{pid}")
    assert core.exists(), done.stderr
    search = search_file(core, wanted)
    core.unlink()
    return search


def search_descriptors(pid, wanted):
    """Every open regular file of a process, read whole; and where each descriptor leads."""
    search, targets = Search(wanted), []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        targets.append(os.readlink(link))
        if link.is_file():
            search.found |= search_file(link, wanted).found
    return search, targets


@pytest.fixture(scope="module")
def stack():
    """A stack of the programs as they are shipped: a sanitizer's memory is terabytes, of which a core takes gigabytes."""
    shipped = Stack(build=REPOSITORY / "build").up()
    yield shipped
    shipped.close()


@pytest.fixture(scope="module")
def busy():
    """A stack after handshakes of many kinds: whatever a worker ever holds, it has held."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "-s", "-j2", "-C", REPOSITORY, "all", f"BUILD={PLAIN_BUILD}"], env=environment, check=True)
    own = Stack(build=PLAIN_BUILD).up()
    for kind in ("p256", "rsa2048"):
        for _ in range(5):
            crt, key = own.cert(own.agent_id("acme", unique("agent")), key_kind=kind)
            assert own.client(crt, key).post("/v1/mesh/register", json={"hostname": "h"}).status_code == 201
    yield own
    own.close()


def front(stack):
    return [stack.pid("frontd"), *stack.workers()]


def test_the_key_files_are_the_needles(busy):
    """The control of the search itself: it finds each key in the file that it comes from."""
    wanted = needles(busy.folder)
    for name in SERVER_KEYS:
        found = search_file(busy.folder.tls / f"{name}.key", wanted).found
        assert found and all(needle.startswith(f"{name} ") for needle in found)


def test_no_strangers_memory_can_be_read(busy):
    """The processes are not dumpable: another process of the same user cannot look into them."""
    for pid in (*front(busy), busy.pid("keeper")):
        done = busy.run_as_owner(["/usr/bin/head", "-c", "1", f"/proc/{pid}/maps"])
        assert done.returncode != 0 and "Permission denied" in done.stderr
        assert re.search(r"(?m)^State:", Path(f"/proc/{pid}/status").read_text())


@looking
def test_no_key_in_the_memory_of_frontd(busy):
    wanted = needles(busy.folder)
    keeper = search_memory(busy.pid("keeper"), wanted)
    assert {found.split(" ")[0] for found in keeper.found} == set(SERVER_KEYS)
    for pid in front(busy):
        search = search_memory(pid, wanted)
        assert search.searched > 1 << 20
        assert not search.found


@looking
def test_no_key_in_the_core_of_frontd(busy, tmp_path):
    wanted = needles(busy.folder)
    for pid in front(busy):
        search = search_core(pid, wanted, tmp_path)
        assert search.searched > 1 << 20
        assert not search.found
    assert search_core(busy.pid("keeper"), wanted, tmp_path).found


@looking
def test_no_key_behind_a_descriptor_of_frontd(busy):
    wanted = needles(busy.folder)
    keys = {str(path) for path in busy.folder.path.rglob("*.key")}
    for pid in front(busy):
        search, targets = search_descriptors(pid, wanted)
        assert targets and not search.found
        assert not keys & set(targets)


@looking
def test_a_worker_holds_only_what_it_was_handed(busy):
    """Sockets, its own epoll and event descriptors, and the standard three: no file, no folder."""
    for pid in busy.workers():
        _, targets = search_descriptors(pid, needles(busy.folder))
        others = [t for t in targets if not re.match(r"socket:|anon_inode:|pipe:", t)]
        assert set(others) <= {"/dev/null", "/dev/urandom", str(busy.folder.log_file("frontd"))}


@looking
def test_a_worker_is_a_program_of_its_own(busy):
    """Executed again, not forked: it inherits no memory of the supervisor's."""
    programs = {os.readlink(f"/proc/{pid}/exe") for pid in busy.workers()}
    assert programs == {str(busy.folder.bin / "frontd-worker")}
    assert processes.is_alive(busy.pid("keeper"))
