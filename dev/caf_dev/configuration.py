"""The configuration files of a stack's parts, and DIR/env."""

import os

from caf_dev.settings import DAEMONS, replace_text

ROLES = ("admin", "auditor", "developer", "operator")


def conninfo(folder, user):
    return f"host={folder.home.run} dbname=caf user={user}"


def defaults(folder, settings):
    """What each daemon is told: daemon, section, key, value."""
    def accepting(name):
        return {"socket": folder.socket(name), "peer_users": os.getuid()}

    return {
        "keeper": {
            "ipc": accepting("keeper"),
            "keys": {"files": f"{folder.tls}/server-p256.key, {folder.tls}/server-rsa.key"},
        },
        "registryd": {
            "ipc": accepting("registryd"),
            "database": {"conninfo": conninfo(folder, "caf_registry")},
            "redis": {"socket": folder.home.socket("redis")},
            "node": {"name": settings.node},
        },
        "auditd": {
            "ipc": accepting("auditd"),
            "database": {"conninfo": conninfo(folder, "caf_audit")},
            "node": {"name": settings.node},
        },
        "eventd": {
            "ipc": accepting("eventd"),
            "database": {"conninfo": conninfo(folder, "caf_event")},
            "node": {"name": settings.node},
        },
        "frontd": {
            "listen": {"address": "127.0.0.1", "port": settings.port},
            "admin": {"listen": folder.socket("metrics")},
            "tls": {
                "certificates": f"{folder.tls}/server-p256.crt, {folder.tls}/server-rsa.crt",
                "client_ca": folder.ca_bundle,
            },
            "identity": {"trust_domain": settings.trust_domain},
            "operators": {pattern: role for role in ROLES for pattern in (f"*/{role}", f"*/{role}-*")},
            "workers": {"count": settings.workers},
            "backends": {**{name: folder.socket(name) for name in ("keeper", "registryd", "auditd", "eventd")},
                         "users": os.getuid()},
        },
    }


def apply_sets(configuration, sets):
    """Lays the --set values over the defaults; within a section they come first, as the first line that fits wins."""
    for name, value in sets.items():
        daemon, section, key = name.split(".", 2)
        sections = configuration[daemon]
        rest = {k: v for k, v in sections.get(section, {}).items() if k != key}
        sections[section] = {key: value, **rest}


def ini_text(sections):
    return "\n".join(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items())
                     for section, pairs in sections.items())


def write_configurations(folder, settings):
    configuration = defaults(folder, settings)
    apply_sets(configuration, settings.sets)
    for daemon in DAEMONS:
        replace_text(folder.configuration(daemon), ini_text(configuration[daemon]))
    if not folder.is_joined():
        replace_text(folder.configuration("redis"), redis_text(folder))


def redis_text(folder):
    return (f"port 0\nunixsocket {folder.socket('redis')}\nunixsocketperm 700\ndir {folder.redis}\n"
            "daemonize no\nsave \"\"\nappendonly no\nset-proc-title no\n")


def write_env(folder, settings):
    """DIR/env: what a client of this stack needs to know, for a shell to source."""
    values = {
        "CAF_URL": f"https://localhost:{settings.port}",
        "CAF_NODE": settings.node,
        "CAF_CA": folder.ca_bundle,
        "CAF_CA_KEY": folder.ca_key,
        "CAF_TRUST_DOMAIN": settings.trust_domain,
        "CAF_AGENT_CERT": folder.agents / "agent-1.crt",
        "CAF_AGENT_KEY": folder.agents / "agent-1.key",
        "CAF_AGENTS": folder.agents,
        "CAF_ADMIN_CERT": folder.operators / "admin.crt",
        "CAF_ADMIN_KEY": folder.operators / "admin.key",
        "CAF_AUDITOR_CERT": folder.operators / "auditor.crt",
        "CAF_AUDITOR_KEY": folder.operators / "auditor.key",
        "PGHOST": folder.home.run,
        "PGDATABASE": "caf",
        "PGUSER": "caf",
        "REDIS_SOCKET": folder.home.socket("redis"),
        "CAF_METRICS_SOCKET": folder.socket("metrics"),
    }
    replace_text(folder.env_file, "".join(f"{name}={value}\n" for name, value in values.items()))
