"""Checks that a call ends within its timeout."""

import threading
import time
from collections.abc import Callable

from harness.testkit.promise import expect

NEARLY = 1.0  # seconds that a wait may last longer than its timeout, at its best of three
NEVER = 5.0  # seconds after the timeout at which a call counts as one that never ends


def ends_in_time(
    call: Callable[[], object],
    timeout: float,
    how: type[BaseException] | tuple[type[BaseException], ...],
    or_well: bool = False,
    again: bool = True,
) -> bool:
    """Expect a call to raise `how` within the timeout, or nearly; not before, where that is TimeoutError alone.

    or_well: it may also end without an error; returns whether it did. again: it may be repeated, so that a busy
    machine is not taken for a wait that is too long.
    """
    for _ in range(3 if again else 1):
        waited, error = _timed(call, timeout)
        if error is None:
            expect(or_well, "it ended as if all were well")
        elif not isinstance(error, how):
            raise error
        elif how is TimeoutError:
            expect(waited > timeout * 0.8, f"it gave up after {waited:.3f} s instead of {timeout} s")
        if waited < timeout + NEARLY:
            break
    else:
        expect(not again, f"it took {waited:.1f} s instead of {timeout} s")
    return error is None


def _timed(call: Callable[[], object], timeout: float) -> tuple[float, BaseException | None]:
    """(seconds that a call took, what it raised). It has a thread of its own: a call that never ends is reported."""
    raised: list[BaseException | None] = []

    def attempt() -> None:
        try:
            call()
            raised.append(None)
        except BaseException as error:  # noqa: BLE001  a transport under test may raise anything
            raised.append(error)

    begun = time.monotonic()
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout + NEVER)
    waited = time.monotonic() - begun
    expect(bool(raised), f"it had not ended after {waited:.1f} s instead of {timeout} s")
    return waited, raised.pop()  # its traceback holds this list: frames, and views of a lane, would live on
