"""What a stack is: its folder, its files, and the settings that it keeps from one `up` to the next."""

import dataclasses
import json
import os
import re
from pathlib import Path

from caf_dev.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]
DAEMONS = ("keeper", "registryd", "auditd", "eventd", "frontd")
PROGRAMS = (*DAEMONS, "frontd-worker", "cafctl")
DEFAULT_TRUST_DOMAIN = "caf.test"
TRUST_DOMAIN = "frontd.identity.trust_domain"
SOCKET_PATH_MAX = 107
LONGEST_SOCKET = "run/.s.PGSQL.5432"


@dataclasses.dataclass
class Settings:
    """Kept in DIR/stack.json. node: its name in records. join: the folder of the stack that it joined; joined: those
    that have joined this one. sets: "daemon.section.key" to value, as --set gave them."""

    port: int = 0
    port_is_fixed: bool = False
    workers: int = 2
    agents: int = 10
    node: str = ""
    join: str = ""
    joined: list = dataclasses.field(default_factory=list)
    sets: dict = dataclasses.field(default_factory=dict)

    @property
    def trust_domain(self):
        return self.sets.get(TRUST_DOMAIN, DEFAULT_TRUST_DOMAIN)


class Folder:
    """DIR: where everything of one stack lies."""

    def __init__(self, path):
        self.path = Path(os.path.abspath(path))
        self.bin = self.path / "bin"
        self.sql = self.path / "sql"
        self.etc = self.path / "etc"
        self.run = self.path / "run"
        self.log = self.path / "log"
        self.ca = self.path / "ca"
        self.tls = self.path / "tls"
        self.agents = self.path / "agents"
        self.operators = self.path / "operators"
        self.postgres = self.path / "postgres"
        self.redis = self.path / "redis"
        self.settings_file = self.path / "stack.json"
        self.env_file = self.path / "env"

    @property
    def home(self):
        """The folder whose PostgreSQL, Redis and CA this stack uses: its own, or that of the stack that it joined."""
        join = self.load().join if self.is_stack() else ""
        return Folder(join) if join else self

    @property
    def ca_bundle(self):
        return self.home.ca / "ca.crt"

    @property
    def ca_key(self):
        return self.home.ca / "ca.key"

    def is_joined(self):
        return self.home is not self

    def made_by_us(self):
        """The folders that `up` makes."""
        shared = () if self.is_joined() else (self.ca, self.redis)
        return (self.bin, self.sql, self.etc, self.run, self.log, self.tls, self.agents, self.operators, *shared)

    def check_name(self):
        """Refuses a path that a socket address, a configuration file or a shell could not hold as it stands."""
        if not re.fullmatch(r"[A-Za-z0-9_./@+=:-]+", str(self.path)):
            raise StackError(f"{self.path}: only letters, digits and _ . / @ + = : - may be in the folder's path")
        longest = len(str(self.path / LONGEST_SOCKET))
        if longest > SOCKET_PATH_MAX:
            raise StackError(f"{self.path}: too long by {longest - SOCKET_PATH_MAX} characters: the path of a Unix "
                             f"socket in it may have {SOCKET_PATH_MAX}")

    def is_stack(self):
        return self.settings_file.exists()

    def check_is_stack(self):
        if not self.is_stack():
            raise StackError(f"{self.path} is not a stack's folder (dev/stack up makes one)")

    def load(self):
        return Settings(**json.loads(self.settings_file.read_text()))

    def save(self, settings):
        replace_text(self.settings_file, json.dumps(dataclasses.asdict(settings), indent=1) + "\n")

    def socket(self, name):
        return self.run / f"{name}.sock"

    def configuration(self, name):
        return self.etc / f"{name}.conf"

    def log_file(self, name):
        return self.log / f"{name}.log"

    def pid_file(self, name):
        return self.run / f"{name}.pid"


def replace_text(path, text):
    """Writes a file so that nobody ever reads half of it."""
    fresh = Path(f"{path}.new")
    fresh.write_text(text)
    fresh.replace(path)
