"""What to say where a name is not known (the name that may be meant, or all that there are), or a call failed."""

from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """`fifa: no such data transport; did you mean fifo?`, or `...; there is fifo, unix` where none is like it.

    what: the kind of thing, such as `factor`. known: all names of that kind, in the order to list them.
    """
    import difflib  # noqa: PLC0415  a start without it is 1 ms shorter

    names = list(known)
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(names) or 'none'}"
    return f"{name}: no such {what}; {hint}"


def reason(error: Exception) -> str:
    """What went wrong. Of a call of the system: the file, and the reason without the number that Python puts first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        file = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
        return f"{file}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def unread() -> bool:
    """Whether standard output is a pipe whose reader has gone, such as `head`, so that there is nothing to say."""
    import select  # noqa: PLC0415  as above

    ready = select.poll()
    ready.register(1, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in ready.poll(0))
