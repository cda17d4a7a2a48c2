"""The file of hosts that are reached over SSH, a list in YAML:

    - {name: a, address: 10.0.0.1, user: measure, python: /opt/harness/bin/python3, options: {port: 2222}}

options: of the connection, as asyncssh.connect() takes them, such as `client_keys` and `known_hosts`.
"""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # it names a directory


class SshHost(BaseModel):
    """A host. python: an interpreter there that has `distributed`, and the harness unless that is installed."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="", pattern=f"^({NAME})?$")
    address: str
    user: str = ""
    python: str = "python3"
    options: dict[str, Any] = {}


def read(path: str) -> list[SshHost]:
    """The hosts in a file. Raises OSError, and ValueError with what is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            given = YAML(typ="safe", pure=True).load(file)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, list) or not given:
        raise ValueError(f"{path}: a list of hosts is expected, such as `- {{name: a, address: 10.0.0.1}}`")
    hosts = []
    for number, one in enumerate(given, 1):
        try:
            host = SshHost.model_validate(one)
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise ValueError(f"{path}: host {number}: {where}: {wrong['msg']}") from None
        name = host.name or re.sub(r"[^A-Za-z0-9._-]+", "-", host.address)
        if not re.fullmatch(NAME, name):
            raise ValueError(f"{path}: host {number}: its address makes no name, {name!r}: give it a `name`")
        hosts.append(host.model_copy(update={"name": name}))
    names = [host.name for host in hosts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: two hosts of the name {twice[0]}")
    return hosts
