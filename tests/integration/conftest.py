"""The fixtures of the integration tests: one stack for all that share it, and a maker of others."""

import contextlib

import pytest
from databases import database, migrated  # noqa: F401 (fixtures)
from harness import Stack

# The files that take longest are begun first.
LONGEST = ("test_faults", "test_stack", "test_broken_backs", "test_broken_back", "test_secrets", "test_http", "test_mesh")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; run by make check-long only")
    config.addinivalue_line("markers", "alone: measures milliseconds; make check-long runs nothing beside it")


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def stack():
    """The stack that the tests share. A test that stops a part of it starts it again."""
    shared = Stack().up()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def second(stack):
    """A second node beside it: the same database and Redis, daemons of its own."""
    joined = Stack(join=stack).up()
    yield joined
    joined.close()


@pytest.fixture
def make_stack():
    """Makes stacks of a test's own; options are those of dev/stack up, sets its --set values, join the Stack to join."""
    with contextlib.ExitStack() as made:

        def make(*options, **rest):
            stack = Stack(*options, **rest).up()
            made.callback(stack.close)
            return stack

        yield make
