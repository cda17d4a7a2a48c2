"""The transports of this package."""

from harness import registry

# Strangers' may be installed, too, as plugins/harness-zmq is by `make test`: they
# have tests of their own, and our pages are not about them.
COMMAND, DATA = (
    {name: kind for name, kind in kinds.items() if kind.__module__.startswith("transports.")}
    for kinds in (registry.installed().command, registry.installed().data)
)
