"""A stack that joins another: daemons of its own on the other's PostgreSQL, Redis, CA and trust domain.

The other is its home. Each remembers the other in its stack.json: the joined one where its home is, and the home who
has joined it, so that it does not go down under them and no two nodes get one name.
"""

import os

from caf_dev.errors import StackError
from caf_dev.parts import all_parts
from caf_dev.settings import TRUST_DOMAIN, Folder

NODE_NAME_MAX = 60


def find_home(folder, wanted):
    """The folder of the stack that this one joins or joined before; None for a stack of its own."""
    joined = folder.load().join if folder.is_stack() else None
    if wanted and joined is not None and os.path.abspath(wanted) != joined:
        raise StackError(f"{folder.path} {f'has joined {joined}' if joined else 'has a database of its own'}")
    if not wanted and not joined:
        return None
    home = Folder(wanted or joined)
    home.check_is_stack()
    if home.path == folder.path:
        raise StackError(f"{folder.path} cannot join itself")
    if home.is_joined():
        raise StackError(f"{home.path} has joined {home.home.path}: join that one")
    return home


def settle(folder, settings, home):
    """Gives the stack its node's name and, when it has a home, makes each know the other. The home is locked."""
    if home is None:
        settings.node = settings.node or free_name(folder, set())
        return
    if all_parts(home)["postgres"].pid() is None:
        raise StackError(f"{home.path} is down: dev/stack up {home.path} comes first")
    host = home.load()
    if settings.join and str(folder.path) not in host.joined:
        raise StackError(f"{home.path} is not the stack that {folder.path} joined: it was made anew")
    if settings.sets.setdefault(TRUST_DOMAIN, host.trust_domain) != host.trust_domain:
        raise StackError(f"the trust domain of {home.path} is {host.trust_domain}")
    others = [other for other in joined_stacks(home) if other.path != folder.path]
    names = {host.node, *(other.load().node for other in others)}
    settings.join, settings.node = str(home.path), settings.node or free_name(folder, names)
    host.joined = [*(str(other.path) for other in others), str(folder.path)]
    home.save(host)


def free_name(folder, taken):
    """The folder's own name, with a number behind it when another node has that."""
    name = first = folder.path.name[:NODE_NAME_MAX]
    number = 1
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    return name


def joined_stacks(home):
    """The folders of the stacks that have joined this one and are still there."""
    folders = [Folder(path) for path in home.load().joined]
    return [folder for folder in folders if folder.is_stack() and folder.load().join == str(home.path)]


def refuse_used(home):
    """Refuses to take away what another stack runs on."""
    for other in joined_stacks(home):
        if any(part.pid() for part in all_parts(other).values()):
            raise StackError(f"{other.path} has joined {home.path} and is up: dev/stack down {other.path} comes first")


def refuse_shared(folder, name):
    """Refuses to touch a part that a joined stack does not have."""
    if name not in all_parts(folder):
        raise StackError(f"{folder.path} has no {name} of its own: it has joined {folder.home.path}, whose {name} it uses")
