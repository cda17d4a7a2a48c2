"""What both kinds of transport promise, and how the checks of a contract are run."""

import contextlib
import functools
import os
import signal
import time
import unittest
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, NamedTuple

from harness import rendezvous
from harness.api import CommandTransport, DataTransport, Scope
from harness.testkit import leaks
from harness.testkit.processes import Child, Nursery, apart
from harness.testkit.promise import Broken, expect


class Outcome(NamedTuple):
    """The result of one check: `problem` is empty where the promise was kept; `skipped` says why it was not checked.

    not_kept: why the promise is not kept, as the transport itself says.
    """

    sentence: str
    problem: str
    hint: str
    skipped: str
    not_kept: str = ""


class NotKept(unittest.SkipTest):
    """The transport says that it does not keep this promise."""


def run(contract: "type[Contract]") -> Iterator[Outcome]:
    """Run every check of a contract whose `transport` is set. Last come promises that the kit cannot check, and that
    the transport says it does not keep."""
    sentences = []
    for name in checks(contract):
        check = getattr(contract(), name)
        problem = skipped = not_kept = ""
        try:
            check()
        except NotKept as reason:
            not_kept = str(reason)
        except unittest.SkipTest as reason:
            skipped = str(reason)
        except Exception as error:  # noqa: BLE001  a transport under test may raise anything
            problem = " ".join(f"{type(error).__name__}: {error}".split())
        sentences.append(sentence(name))
        yield Outcome(sentences[-1], problem, " ".join((check.__doc__ or "").split()), skipped, not_kept)
    for promise, why in contract.transport.not_kept.items():
        if promise not in sentences:
            yield Outcome(promise, "", "", "", why)


def checks(contract: "type[Contract]") -> list[str]:
    """The names of a contract's checks, in the order in which they run."""
    return [name for name in dir(contract) if name.startswith("test_")]


def sentence(name: str) -> str:
    """The promise that a check's name says."""
    return name.removeprefix("test_").replace("_", " ")


def _apart(check: "Callable[[Contract], None]") -> "Callable[[Contract], None]":
    """The check, run in a process of its own, unless the transport says that it does not keep its promise."""

    @functools.wraps(check)
    def checked(contract: "Contract") -> None:
        promise = sentence(check.__name__)
        if promise == MAY_BE_BROKEN and promise in contract.transport.not_kept:
            raise NotKept(contract.transport.not_kept[promise])
        with leaks.named_after_this_process():
            apart(partial(check, contract), contract.stress)

    return checked


# The only promise of the kit that a transport may say it does not keep: no program of the harness needs it.
MAY_BE_BROKEN = "an end opens in a fork of a process that has one open"


class Contract:
    """The promises of both kinds. Each check runs in a process of its own.

    timeout: seconds of the scopes, in checks that do not wait for it to pass. stress: seconds for which checks of many
    ends at once go on, at least; with 0 they are run once.
    """

    transport: ClassVar[CommandTransport | DataTransport]
    timeout: ClassVar[float] = 2.0
    stress: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        for name in checks(cls):
            if not hasattr(check := getattr(cls, name), "__wrapped__"):
                setattr(cls, name, _apart(check))

    @contextlib.contextmanager
    def _home(self) -> Iterator[rendezvous.Home]:
        with leaks.base_of_its_own():
            home = rendezvous.Home(leaks.rendezvous_name(), "owner")
            try:
                yield home
            finally:
                home.close()

    @contextlib.contextmanager
    def _provisioned(self, timeout: float | None = None) -> Iterator[Scope]:
        with self._home() as home:
            scope = home.scope("scope", timeout or self.timeout)
            with self.transport.provision(scope), self._nursery():
                yield scope

    def _nursery(self) -> Nursery:
        return Nursery(self, self.transport)

    def _again_and_again(self) -> Iterator[None]:
        """Once, and then again until the seconds of `stress` are over."""
        ended = time.monotonic() + self.stress
        yield
        while time.monotonic() < ended:
            yield

    def test_its_attributes_are_true_or_false(self) -> None:
        """The class attributes `floor`, `moves_content` and `keeps_content` are bools: reports and experiments decide
        by them. That `floor` is right cannot be checked. `not_kept` may have one promise of the kit."""
        for name in ("floor", "moves_content", "keeps_content"):
            said = getattr(self.transport, name, False)  # a command transport has `floor` alone
            expect(isinstance(said, bool), f"{name} = {said!r}: must be True or False")
        checked = {sentence(name) for name in checks(type(self))} - {MAY_BE_BROKEN}
        for promise, reason in self.transport.not_kept.items():
            expect(promise not in checked, f"not_kept: {promise!r} must be kept")
            expect(bool(reason), f"not_kept: {promise!r} has no reason")

    def test_nothing_is_left_behind_after_provision(self) -> None:
        """provision() must remove what it created when its context ends; names come from the scope, so that a sweep
        finds them. close() of an end must close its descriptors: count those of /proc/self/fd. What a library opens
        with the first end, for all ends of the process, is not counted."""
        with self._home() as home:
            self._open_and_close(first := home.scope("first", self.timeout))
            rendezvous.remove_scope(first)
            descriptors = leaks.descriptors()  # the home's lock is one of them
            objects = leaks.ipc_objects()
            scope = home.scope("scope", self.timeout)
            self._open_and_close(scope)
            left = leaks.new_ipc_objects(objects)
            expect(not left, f"left behind: {', '.join(sorted(left))}")
            rendezvous.remove_scope(scope)
            found = home.close()
            expect(not found, f"left behind: {', '.join(found)}")
            opened = leaks.more_descriptors_than(descriptors - 1)
            expect(opened == 0, f"{opened} descriptors left open")

    def _open_and_close(self, scope: Scope) -> None:
        with self.transport.provision(scope):
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            sender.close()
            receiver.close()

    def test_a_sweep_finds_what_a_killed_owner_left(self) -> None:
        """Every name must come from scope.posix_name, scope.path or scope.sysv_key: these record it in the ledger
        before the object is made. No sweep finds a name that a transport made up by itself."""
        with self._home() as home:
            objects = leaks.ipc_objects()
            with self._nursery():
                child = Child(self._die_provisioned)
                expect(child.ended() == -signal.SIGKILL, "provision() or receiver() failed in a second process")
            rendezvous.sweep(leaks.rendezvous_name())
            left = leaks.new_ipc_objects(objects)
            expect(not left, f"not found by the sweep: {', '.join(sorted(left))}")
            expect(os.path.isdir(home.directory), "the sweep removed what belongs to a living program")

    def _die_provisioned(self) -> None:
        scope = rendezvous.Home(leaks.rendezvous_name(), "killed").scope("scope", self.timeout)
        with self.transport.provision(scope):
            self.transport.receiver(scope)
            os.kill(os.getpid(), signal.SIGKILL)

    def test_a_failed_provision_leaves_nothing_behind(self) -> None:
        """Where provision() raises halfway it must undo what it has made: use contextlib.ExitStack. In this check an
        earlier provision() has taken the scope's names."""
        with self._provisioned() as scope:
            objects, descriptors = leaks.ipc_objects(), leaks.descriptors()
            before = set(os.listdir(scope.directory))
            with contextlib.suppress(Exception), self.transport.provision(scope):
                return  # the ends of this transport make its names, so provision() cannot fail on them
            opened = leaks.more_descriptors_than(descriptors)
            expect(opened == 0, f"{opened} descriptors left open")
            left = leaks.new_ipc_objects(objects)
            expect(not left, f"left behind: {', '.join(sorted(left))}")
            expect(set(os.listdir(scope.directory)) <= before, "files were left behind in the scope's directory")

    def test_ends_close_twice(self) -> None:
        """close() must do nothing the second time."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            for end in (sender, receiver, sender, receiver):
                end.close()

    def test_opening_a_sender_before_provision_fails_at_once(self) -> None:
        """sender() must raise OSError (FileNotFoundError, ConnectionRefusedError) and not wait: the harness retries."""
        with self._home() as home:
            scope = home.scope("scope", self.timeout)
            begun = time.monotonic()
            try:
                self.transport.sender(scope).close()
            except OSError:
                expect(time.monotonic() - begun < self.timeout, "it waited")
            else:
                raise Broken("sender() opened something that was never provisioned")
