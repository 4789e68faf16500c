"""The processes of one run meet before JAX joins them: who is missing or differs is then one line, with its name.

`jax.distributed.initialize` can do neither: where the coordinator does not answer or a host is missing, it ends the
process from C++ ("If any of these machines fail, then every machine will fail",
https://docs.jax.dev/en/latest/fault_tolerance.html), and it compares no versions. So every process meets the others
once before that, on the coordinator's port, with plain sockets: each says who it is and which versions it has, and
process 0 answers all of them. When JAX raises a Python exception that names the hosts, this file can go.
"""

import contextlib
import importlib.metadata
import json
import platform
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxmlm.errors import InputError
from jaxmlm.parallel.clusters import ClusterSpec

PACKAGES = ("jaxmlm", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint")
"""Those whose versions must be equal on all hosts."""


class Member(NamedTuple):
    """What one process tells the others when they meet."""

    process: int
    host: str
    versions: dict[str, str]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"host {self.process} ({self.host})"


def installed_versions() -> dict[str, str]:
    """The versions that must be equal on all hosts."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def meet(cluster: ClusterSpec, me: Member, wait: float, kept: list[socket.socket] | None = None) -> list[Member]:
    """Exchange who is there on the coordinator's port.

    Args:
        cluster: the coordinator, how many processes there are and which one this is.
        me: what the others are told.
        wait: seconds until those that have not come are missing.
        kept: gets the connections, open: of process 0 one to each of the others, by process; of another that to
            process 0. None: they are closed.

    Returns:
        All members, by process.

    Raises:
        InputError: the coordinator does not answer or its port is taken; a host is missing, or is there twice.

    """
    deadline = time.monotonic() + wait
    exchange = _serve if cluster.process == 0 else _report
    with contextlib.ExitStack() as opened:
        answer, connections = exchange(cluster, me, deadline, wait, opened)
        if "error" in answer:
            raise InputError(answer["error"])
        if kept is not None:
            opened.pop_all()
            kept.extend(connections)
    return [Member(*member) for member in answer["members"]]


Heard = tuple[dict[str, Any], list[socket.socket]]
"""The answer of process 0, and the connections over which it went."""


def _serve(cluster: ClusterSpec, me: Member, deadline: float, wait: float, opened: contextlib.ExitStack) -> Heard:
    """Process 0: wait for everybody, then send everybody the members, or what is wrong."""
    try:
        server = socket.create_server(("", cluster.port), backlog=cluster.processes)
    except OSError as error:
        raise InputError(
            f"port {cluster.port} of this host cannot be opened ({error.strerror}): name another in --coordinator"
        ) from error
    members = {0: me}
    connections: list[socket.socket] = []
    answer: dict[str, Any] = {}
    with server:
        while len(members) < cluster.processes and not answer:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
                opened.enter_context(connection).settimeout(10)
                with connection.makefile() as line:
                    member = Member(*json.loads(line.readline()))
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue  # somebody who connected and said nothing
                missing = ", ".join(cluster.name(i) for i in range(cluster.processes) if i not in members)
                answer = {
                    "error": f"{cluster.processes - len(members)} of {cluster.processes} hosts did not come within "
                    f"{wait:.0f} s: {missing}: start the same command on every host"
                }
            except (OSError, ValueError, TypeError):
                continue  # not one of us
            else:
                connections.append(connection)
                if member.process in members or not 0 <= member.process < cluster.processes:
                    answer = {
                        "error": f"{member.name} gave a --process that is taken or not below --processes "
                        f"{cluster.processes}: number the hosts from 0, each once"
                    }
                members[member.process] = member
        answer = answer or {"members": [members[i] for i in range(cluster.processes)]}
        for connection in connections:
            with contextlib.suppress(OSError):  # it has gone meanwhile: JAX will miss it
                connection.sendall(json.dumps(answer).encode() + b"\n")
    by_process = sorted(zip(list(members)[1:], connections, strict=False), key=lambda one: one[0])
    return answer, [connection for _, connection in by_process]


def _report(cluster: ClusterSpec, me: Member, deadline: float, wait: float, opened: contextlib.ExitStack) -> Heard:
    """Every other process: say to process 0 who this is; return its answer."""
    why: object = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            # Process 0 answers when all have come, or when its own wait is over: a little after ours may be.
            connection = socket.create_connection((cluster.address, cluster.port), timeout=left)
            opened.enter_context(connection).settimeout(left + 10)
            connection.sendall(json.dumps(me).encode() + b"\n")
            with connection.makefile() as line:
                return json.loads(line.readline()), [connection]
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
        time.sleep(min(0.5, max(deadline - time.monotonic(), 0)))
    raise InputError(
        f"the coordinator {cluster.coordinator} does not answer after {wait:.0f} s ({why}): start the same command on "
        "every host, process 0 on that one, and let the port through"
    )


def refuse_different(told: Sequence[tuple[str, Mapping[str, Any]]], what: str, advice: str) -> None:
    """Refuse hosts that differ, by the names of those in the minority.

    Args:
        told: (name of the host, its values) for each host.
        what: what the values are, in the plural, for the message.
        advice: what to do about it.

    Raises:
        InputError: the first value that differs, and on which hosts.

    >>> told = [("host 0", {"jax": "1"}), ("host 1", {"jax": "1"}), ("host 2", {"jax": "2"})]
    >>> refuse_different(told, "versions", "update")
    Traceback (most recent call last):
    jaxmlm.errors.InputError: the hosts have different versions: jax is 2 on host 2, and 1 on 2 others: update
    """
    for key in dict.fromkeys(key for _, values in told for key in values):
        have = {name: json.dumps(values.get(key)) for name, values in told}
        usual, _ = Counter(have.values()).most_common(1)[0]
        odd = [value for value in have.values() if value != usual]
        if odd:
            same = [name for name, value in have.items() if value == usual]
            different = [name for name, value in have.items() if value == odd[0]]
            names = ", ".join(different[:4]) + (f" and {len(different) - 4} more" if len(different) > 4 else "")
            others = f"{len(same)} others" if len(same) > 1 else same[0]
            raise InputError(
                f"the hosts have different {what}: {key} is {_plain(odd[0])} on {names}, and {_plain(usual)} on "
                f"{others}: {advice}"
            )


def _plain(value: str) -> str:
    return "missing" if value == "null" else value.strip('"')
