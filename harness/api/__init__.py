"""Everything that a plugin may import. The contract is the docstring of harness/api/contract.py.

- `contract.py`: what a transport promises, its ends, its options, and how a plugin registers.
- `scope.py`: the names of one channel or lane.
- `sockets.py`: Unix sockets, TCP on the loopback, descriptors in messages, waits that end in time.
- `streams.py`: the two ends of a lane over a stream socket.
- `probe.py`: probes, which look at the processes of a trial.
"""

from harness.api.contract import (
    COMMAND_BYTES,
    HEAD_BYTES,
    ClientGiver,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    DataTransport,
    End,
    FileSender,
    Receiver,
    Sender,
    SocketReceiver,
    check_least,
    content_length,
    hookimpl,
)
from harness.api.probe import Moments, Probe, Reading
from harness.api.scope import Scope, SysvKind
from harness.api.sockets import (
    DescriptorSocket,
    TcpPort,
    await_room,
    bound_socket,
    connected_socket,
    limit_waits,
    reset_on_close,
    send_file,
    socket_name,
    tcp_accepted,
    tcp_connected,
    tcp_listener,
)
from harness.api.streams import StreamReceiver, StreamSender

__all__ = [
    "COMMAND_BYTES",
    "HEAD_BYTES",
    "ClientGiver",
    "CommandReceiver",
    "CommandSender",
    "CommandTransport",
    "DataTransport",
    "DescriptorSocket",
    "End",
    "FileSender",
    "Moments",
    "Probe",
    "Reading",
    "Receiver",
    "Scope",
    "Sender",
    "SocketReceiver",
    "StreamReceiver",
    "StreamSender",
    "SysvKind",
    "TcpPort",
    "await_room",
    "bound_socket",
    "check_least",
    "connected_socket",
    "content_length",
    "hookimpl",
    "limit_waits",
    "reset_on_close",
    "send_file",
    "socket_name",
    "tcp_accepted",
    "tcp_connected",
    "tcp_listener",
]
