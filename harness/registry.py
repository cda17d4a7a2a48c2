"""Finds transports and probes by the entry points of group `transport_harness`, built-in ones like all others.

Plugins are loaded one by one, as pluggy's own loading stops at the first that fails to import. The reason of a failure
is kept: `harness plugins` shows it, and so does the message for a name that does not exist. A transport that is asked
for is first looked for in the plugin of its name alone: a program of a trial starts sooner without the others.
"""

import dataclasses
import re
from functools import cache
from typing import Any, Literal, NamedTuple, get_type_hints

import pluggy

from harness import api, suggest, units
from harness.api.contract import GROUP, Hooks
from harness.entry_points import EntryPoint, entry_points

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TRIALS = "trials"  # the result file that no probe may write
# What a transport says of itself beside its name and options; harness/api/contract.py explains each.
_FLAGS: dict[type, list[str]] = {
    api.CommandTransport: ["floor"],
    api.DataTransport: ["floor", "moves_content", "keeps_content"],
}
Kind = Literal["command", "data"]
AnyTransport = api.CommandTransport | api.DataTransport


class Registry(NamedTuple):
    """The plugins that are installed.

    command, data, probes: name to class. failed: entry point to the reason why it did not load. origins: class to the
    distribution, name and version, that brought it.
    """

    command: dict[str, type[api.CommandTransport]]
    data: dict[str, type[api.DataTransport]]
    probes: dict[str, type[api.Probe]]
    failed: dict[str, str]
    origins: dict[type, str]


class UnknownTransport(ValueError):
    """There is no such transport, option, value or probe; the message lists what there is."""


@cache
def installed() -> Registry:
    """All installed transports and probes. Raises ValueError if two plugins use one name."""
    return _load(_entries())


@cache
def _alone(plugin: str) -> Registry:
    """What the plugin of that name offers: nothing where there is no such plugin."""
    return _load([point for point in _entries() if point.name == plugin])


@cache
def _entries() -> list[EntryPoint]:
    return entry_points(GROUP)


def _load(entries: list[EntryPoint]) -> Registry:
    """What these plugins offer. Raises ValueError if two of them use one name."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    failed: dict[str, str] = {}
    distributions = {}
    for entry in entries:
        distributions[entry.name] = entry.distribution
        known = manager.has_plugin(entry.name)
        try:
            manager.register(entry.load(), entry.name)
            manager.check_pending()
        except Exception as error:  # noqa: BLE001  a plugin may raise anything
            failed[entry.name] = f"{type(error).__name__}: {error}"
            if not known and manager.has_plugin(entry.name):
                manager.unregister(name=entry.name)
    return _collect(manager, failed, distributions)


def _collect(manager: pluggy.PluginManager, failed: dict[str, str], distributions: dict[str, str]) -> Registry:
    """The classes that the plugins in `manager` offer. Each plugin is called by itself; failures are added to `failed`.

    Raises ValueError if two plugins use one name.
    """
    registry = Registry({}, {}, {}, failed, {})
    kinds: tuple[tuple[pluggy.HookCaller, type, dict[str, Any]], ...] = (
        (manager.hook.command_transports, api.CommandTransport, registry.command),
        (manager.hook.data_transports, api.DataTransport, registry.data),
        (manager.hook.probes, api.Probe, registry.probes),
    )
    for hook, base, table in kinds:
        for plugin in hook.get_hookimpls():
            function: Any = plugin.function
            try:
                offered = {_name_of(one, base): one for one in function()}
            except Exception as error:  # noqa: BLE001
                failed[plugin.plugin_name] = f"{type(error).__name__}: {error}"
                continue
            for name, one in offered.items():
                if name in table:
                    raise ValueError(f"two plugins offer {name!r}: {table[name]!r} and {one!r}; uninstall one")
                table[name] = one
                registry.origins[one] = distributions.get(plugin.plugin_name, "unknown")
    command, data, probes = (dict(sorted(table.items())) for _, _, table in kinds)
    return registry._replace(command=command, data=data, probes=probes)


def _name_of(offered: Any, base: type) -> str:
    """The name of a transport's or probe's class. Raises TypeError if it is not such a class, or breaks a rule."""
    what = "class" if base is api.Probe else "dataclass"
    fits = isinstance(offered, type) and issubclass(offered, base)
    if not fits or (what == "dataclass" and not dataclasses.is_dataclass(offered)):
        raise TypeError(f"{offered!r} is not a {what} derived from {base.__name__}")
    if base is api.Probe:
        offered()
        if _checked_name(offered, "table") == _TRIALS:
            raise TypeError(f"{offered!r}: its table cannot be {_TRIALS!r}")
    else:
        for option in dataclasses.fields(offered):
            if type(option.default) not in {bool, int, float, str}:
                raise TypeError(f"{offered!r}: option {option.name} needs a default that is a bool, int, float or str")
            if option.name in _FLAGS[base]:
                raise TypeError(
                    f"{offered!r}: {option.name} must not be an option; write `{option.name} = {option.default}`, "
                    "without an annotation"
                )
        for flag in _FLAGS[base]:
            if type(value := getattr(offered, flag)) is not bool:
                raise TypeError(f"{offered!r}: its {flag} is {value!r}; it must be True or False")
    if base is api.DataTransport:
        shape(offered)
    return _checked_name(offered, "name")


def _checked_name(offered: type, attribute: str) -> str:
    name = getattr(offered, attribute, None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TypeError(f"{offered!r}: its {attribute} is {name!r}; it must be letters, digits, '_' and '-'")
    return name


def command_transport(text: str) -> api.CommandTransport:
    """The command transport that `name[:option=value,...]` describes. Raises UnknownTransport."""
    name, options = parse(text)
    transport: api.CommandTransport = _build(_find("command", name), options)
    return transport


def data_transport(text: str, **wanted: Any) -> api.DataTransport:
    """The data transport that `name[:option=value,...]` describes.

    wanted: as in completed(). Raises UnknownTransport.
    """
    name, options = parse(completed(text, **wanted))
    built: api.DataTransport = _build(_find("data", name), options)
    return built


def completed(text: str, **wanted: Any) -> str:
    """The description of a data transport with values for options that it does not set; the rest have their defaults.

    A value that is empty (None, 0, ""), or that the transport has no option for, is ignored. Raises UnknownTransport.
    """
    name, options = parse(text)
    for field in dataclasses.fields(_find("data", name)):
        if wanted.get(field.name):
            options.setdefault(field.name, str(wanted[field.name]))
    pairs = ",".join(f"{option}={value}" for option, value in options.items())
    return f"{name}:{pairs}" if pairs else name


def probe(name: str) -> api.Probe:
    """A new probe of that name, for one trial. Raises UnknownTransport."""
    if name not in installed().probes:
        raise UnknownTransport(unknown("probe", name, installed().probes))
    return installed().probes[name]()


def defaults() -> list[AnyTransport]:
    """Every installed transport, command transports first, with its default options."""
    found = installed()
    return [*(kind() for kind in found.command.values()), *(kind() for kind in found.data.values())]


def parse(text: str) -> tuple[str, dict[str, str]]:
    """`name:a=1,b=2` as (name, options). Raises UnknownTransport."""
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for pair in filter(None, rest.split(",")):
        option, equals, value = pair.partition("=")
        if not equals or option in options:
            raise UnknownTransport(f"{text}: write options as {name}:option=value,option=value, each once")
        options[option.strip()] = value.strip()
    return name.strip(), options


def describe(transport: AnyTransport) -> str:
    """The text that builds `transport` again, with all its options."""
    fields = dataclasses.fields(transport)  # type: ignore[arg-type]
    options = ",".join(f"{field.name}={getattr(transport, field.name)}" for field in fields)
    return f"{transport.name}:{options}" if options else transport.name


def shape(transport: api.DataTransport | type[api.DataTransport]) -> tuple[str, str]:
    """(cache end, proxy end) of a lane: each `copy` or `zero-copy`, the proxy's also `hand-off`.

    The return annotations of sender() and receiver() say it. Raises TypeError if they do not.
    """
    return (
        _shape_of(transport.sender, {api.Sender: "copy", api.FileSender: "zero-copy"}),
        _shape_of(
            transport.receiver,
            {api.Receiver: "copy", api.SocketReceiver: "zero-copy", api.ClientGiver: "hand-off"},
        ),
    )


def _shape_of(verb: Any, shapes: dict[type, str]) -> str:
    end = get_type_hints(verb).get("return")
    for kind, shape_of_kind in shapes.items():
        if isinstance(end, type) and issubclass(end, kind):
            return shape_of_kind
    kinds = " or ".join(kind.__name__ for kind in shapes)
    raise TypeError(f"{verb.__qualname__}() must have the return annotation {kinds}")


def _find(kind: Kind, name: str) -> Any:
    """The class of the transport of that name. Unless all are loaded, the plugin of that name is first tried alone."""
    all_loaded = installed.cache_info().currsize
    known = {} if all_loaded else getattr(_alone(name), kind)
    if name not in known:
        known = getattr(installed(), kind)
    if name not in known:
        raise UnknownTransport(unknown(f"{kind} transport", name, known))
    return known[name]


def _build(transport: Any, options: dict[str, str]) -> Any:
    name = transport.name
    fields = {field.name: field for field in dataclasses.fields(transport)}
    values = {}
    for option, value in options.items():
        if option not in fields:
            raise UnknownTransport(unknown(f"option of {name}", option, fields))
        values[option] = _convert(f"{name}:{option}", value, type(fields[option].default))
    try:
        return transport(**values)
    except ValueError as error:
        raise UnknownTransport(f"{name}: {error}") from None


def _convert(where: str, value: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return units.size(value) if kind is int else kind(value)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number, such as 4096 or 64KiB"}.get(kind, kind.__name__)
        raise UnknownTransport(f"{where}={value}: not {wanted}") from None


def unknown(what: str, name: str, known: Any) -> str:
    """What to say of a name that no plugin offers: what may be meant, and which plugins could not be loaded."""
    failed = "".join(f"; plugin {plugin} failed to load: {reason}" for plugin, reason in installed().failed.items())
    return suggest.unknown(what, name, sorted(known)) + failed
