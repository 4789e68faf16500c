#!/usr/bin/env -S python3 -IS
"""A stand-in for Google Cloud: `gcloud` with TPUs in a directory, and what their workers have on the PATH.

Linked under the names gcloud, uv, sudo, gcsfuse, mountpoint, curl, systemd-run and shutdown. $STANDIN is the directory:

    state.json      the TPUs and the requests for them
    plan.json       what goes wrong: [{"on": parts of the call, "skip": 0, "times": 1, "do": ...}], and perhaps a "verb"
    calls.jsonl     every call of gcloud, in order
    workers/HOST/   the disk of a worker: `ssh` runs its --command there, with HOME set to it, /gcs and /var/lib in it
    buckets/NAME/   a bucket

`do` is: unavailable, denied (it fails); hang (no answer, nothing done); lost (done, no answer); broken (done, and it
fails); slow (a deletion, ordered and not awaited); preempt, restart, expire, dismiss, dismiss-node (before it).
The flags are those of Google Cloud SDK 528, and an unknown one is refused as there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I has no directory of the script

from standin_base import ANYWHERE, DIRECTORY, FLAGS, ZONES, Refused, environment_of, rooted, state  # noqa: E402
from standin_tpus import HAPPENS, boot, busy, disk, dismiss, elapse, found, missing, wipe  # noqa: E402


def gcloud(words: list[str]) -> None:
    verb = next((verb for verb in FLAGS if words[: len(verb.split())] == verb.split()), None)
    if verb is None:
        raise Refused(f"ERROR: (gcloud) Invalid choice: {' '.join(words)!r}.", 2)
    flags = {word.split("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
    names = [word for word in words[len(verb.split()) :] if not word.startswith("--")]
    if unknown := set(flags) - FLAGS[verb] - ANYWHERE:
        raise Refused(f"ERROR: (gcloud) unrecognized arguments: {' '.join(unknown)}", 2)
    with open(DIRECTORY / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    fault = planned(words)
    if fault == "unavailable":
        raise Refused("ERROR: (gcloud) UNAVAILABLE: The service is currently unavailable.")
    if fault == "denied":
        raise Refused("ERROR: (gcloud) PERMISSION_DENIED: The caller does not have permission.")
    if fault == "hang":
        time.sleep(600)
    if fault in HAPPENS:
        with state() as now:
            for name in list(now["tpus"] if fault in ("preempt", "restart") else now["requests"] | now["tpus"]):
                HAPPENS[fault](now, name)
    if fault == "slow":
        with state() as now:
            dismiss(now, names[0])
        raise Refused("ERROR: (gcloud) DEADLINE_EXCEEDED: the operation has not finished")
    VERBS[verb](names, flags)
    if fault == "broken":
        raise Refused("ERROR: (gcloud) scp: Connection closed by remote host")
    if fault == "lost":
        time.sleep(600)


def planned(words: list[str]) -> str | None:
    path = DIRECTORY / "plan.json"
    line = " ".join(words)
    with state() as now:
        for number, fault in enumerate(json.loads(path.read_text()) if path.exists() else []):
            if fault.get("verb") in (None, *words) and all(word in line for word in fault["on"].split()):
                seen = now["seen"][str(number)] = now["seen"].get(str(number), 0) + 1
                if 0 < seen - fault.get("skip", 0) <= fault.get("times", 1):
                    return fault["do"]
    return None


def auth_list(names, flags):
    if not (DIRECTORY / "logged-out").exists():
        print("someone@example.com")


def locations(names, flags):
    print("\n".join(ZONES))


def types(names, flags):
    print("\n".join(ZONES[flags["--zone"]]))


def request(names, flags):
    """A queued resource: no capacity at the first look, then there."""
    (name,) = names
    known_type(flags)
    with state() as now:
        if name in now["requests"]:
            now["again"] += 1
            raise Refused("ERROR: (gcloud) ALREADY_EXISTS: Requested entity already exists")
        count = int(flags.get("--node-count", 1))
        nodes = (
            [flags["--node-id"]] if "--node-id" in flags else [f"{flags['--node-prefix']}-{i}" for i in range(count)]
        )
        now["requests"][name] = {
            "state": "WAITING_FOR_RESOURCES",
            "nodes": nodes,
            "type": flags["--accelerator-type"],
            "metadata": metadata(flags),
        }


def look(names, flags):
    (name,) = names
    with state() as now:
        one = found(now, "requests", name)
        values = {"state.state": one["state"], "state.stateInitiator": one.get("initiator", "")}
        asked = re.findall(r"[\w.]+", flags.get("--format", "").removeprefix("value"))
        print("\t".join(values.get(name, "") for name in asked))
        steps = {"WAITING_FOR_RESOURCES": "PROVISIONING", "PROVISIONING": "ACTIVE"}
        one["state"] = steps.get(one["state"], one["state"])
        if one["state"] == "ACTIVE":
            for node in one["nodes"]:
                if node not in now["tpus"]:
                    boot(now, node, one["type"], one["metadata"])


def withdraw(names, flags):
    (name,) = names
    with state() as now:
        one = now["requests"].get(name) or missing(name)
        if any(node in now["tpus"] for node in one["nodes"]) and "--force" not in flags:
            raise Refused("ERROR: (gcloud) FAILED_PRECONDITION: the queued resource has nodes")
        busy(one)
        for node in one["nodes"]:
            wipe(now, node)
        del now["requests"][name]


def create(names, flags):
    (name,) = names
    known_type(flags)
    with state() as now:
        if name in now["tpus"]:
            now["again"] += 1
            raise Refused("ERROR: (gcloud) ALREADY_EXISTS: Requested entity already exists")
        boot(now, name, flags["--accelerator-type"], metadata(flags))


def describe(names, flags):
    with state() as now:
        print(found(now, "tpus", names[0])["state"])


def delete(names, flags):
    with state() as now:
        busy(now["tpus"].get(names[0]) or missing(names[0]))
        wipe(now, names[0])


def known_type(flags):
    if flags["--accelerator-type"] not in ZONES.get(flags["--zone"], ()):
        raise Refused(f"ERROR: (gcloud) INVALID_ARGUMENT: no {flags['--accelerator-type']} in {flags['--zone']}")


def metadata(flags) -> dict[str, str]:
    """The metadata of a TPU, with what is read from files."""
    given = dict(pair.split("=", 1) for pair in flags.get("--metadata", "").split(",") if pair)
    files = dict(pair.split("=", 1) for pair in flags.get("--metadata-from-file", "").split(",") if pair)
    return given | {name: Path(path).read_text() for name, path in files.items()}


def workers(node: str, flags) -> list[Path]:
    with state() as now:
        tpu = now["tpus"].get(node) or missing(node)
    if tpu["state"] != "READY":
        raise Refused(f'ERROR: (gcloud) This TPU has terminal state "{tpu["state"]}", so it cannot be used anymore.')
    which = flags.get("--worker", "0")
    return [disk(node, host) for host in (range(tpu["hosts"]) if which == "all" else [int(which)])]


def ssh(names, flags):
    """The command on each worker, in parallel; the first exit code that is not 0."""
    started = []
    for home in workers(names[0], flags):
        command, environment = rooted(flags["--command"], home), environment_of(home)
        started.append(subprocess.Popen(["bash", "-c", command], cwd=home, env=environment, stdin=subprocess.DEVNULL))
    if code := next((code for code in [one.wait() for one in started] if code), 0):
        raise Refused(f"##### Command execution on a worker failed with exit status {code}. Continuing.", code)


def scp(names, flags):
    *sources, to = names
    for node in {name.partition(":")[0] for name in names if ":" in name}:
        for home in workers(node, flags):

            def here(name: str, home: Path = home) -> Path:
                host, colon, path = name.partition(":")
                return home / rooted(path, home) if colon else Path(name)

            for source in sources:
                if here(source).is_dir():
                    if "--recurse" not in flags:
                        raise Refused(f"ERROR: (gcloud) scp: {source}: not a regular file")
                    inside = here(to) / here(source).name if here(to).is_dir() else here(to)
                    shutil.copytree(here(source), inside, dirs_exist_ok=True)
                elif here(source).exists():
                    shutil.copy(here(source), here(to))
                else:
                    raise Refused(f"ERROR: (gcloud) scp: {source}: NOT_FOUND: No such file or directory")


def bucket(url: str) -> Path:
    name, _, path = url.removeprefix("gs://").partition("/")
    if not (DIRECTORY / "buckets" / name).is_dir():
        raise Refused(f"ERROR: (gcloud.storage) [someone@example.com] does not have permission: HTTPError 403: {name}")
    return DIRECTORY / "buckets" / name / path


def storage_ls(names, flags):
    bucket(names[0])
    print(names[0] + "/")


def rsync(names, flags):
    source, to = names
    if not bucket(source).is_dir():
        raise Refused(f"ERROR: (gcloud.storage.rsync) Did not find existing container at: {source}: 404")
    shutil.copytree(bucket(source), to, dirs_exist_ok=True)


VERBS = {
    "auth list": auth_list,
    "compute tpus locations list": locations,
    "compute tpus accelerator-types list": types,
    "compute tpus queued-resources create": request,
    "alpha compute tpus queued-resources create": request,
    "compute tpus queued-resources describe": look,
    "compute tpus queued-resources delete": withdraw,
    "compute tpus tpu-vm create": create,
    "compute tpus tpu-vm describe": describe,
    "compute tpus tpu-vm delete": delete,
    "compute tpus tpu-vm ssh": ssh,
    "compute tpus tpu-vm scp": scp,
    "storage ls": storage_ls,
    "storage rsync": rsync,
}


def uv(words: list[str]) -> None:
    """`uv venv DIR` and `uv pip install --editable .`: an environment that is the one of the tests."""
    python = os.environ["STANDIN_PYTHON"]
    if words[0] == "venv":
        program(Path(words[-1]) / "bin" / "python", f'exec {python} "$@"')
    else:
        program(Path(words[words.index("--python") + 1]).parent / "jaxmlm", f'exec {python} -m jaxmlm "$@"')


def program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def gcsfuse(words: list[str]) -> None:
    """`gcsfuse --implicit-dirs BUCKET DIRECTORY`: a link to the bucket."""
    name, directory = words[-2:]
    if Path(directory).is_symlink():  # two workers that share a path, and the other was quicker
        return
    Path(directory).rmdir()
    os.symlink(os.path.relpath(bucket(name), Path(directory).parent), directory)


def curl(words: list[str]) -> None:
    """`curl URL` of the metadata server."""
    about = json.loads((Path(os.environ["HOME"]) / "metadata.json").read_text())
    name = words[-1].rpartition("/")[2]
    if name not in about:
        raise Refused("", 22)
    print(about[name], end="")


def systemd_run(words: list[str]) -> None:
    """`systemd-run --on-active=Ns COMMAND`: a timer, which `elapse` lets run out."""
    options = [word for word in words if word.startswith("--on-active") or word.startswith("--unit")]
    (Path(os.environ["HOME"]) / "timer.json").write_text(json.dumps({"options": options, "do": words[len(options) :]}))


def shutdown(words: list[str]) -> None:
    """`shutdown -P now` or `-P +MINUTES`: written down; that the cloud sees it, nobody promises."""
    with open(DIRECTORY / "shutdowns", "a") as file:
        file.write(f"{os.environ['HOSTNAME']} {' '.join(words)}\n")


def main() -> int:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    try:
        if name == "sudo":
            if Path(words[-1]).is_symlink():  # root may not even look at what a user has mounted
                raise Refused(f"{words[0]}: cannot create directory '{words[-1]}': File exists")
            os.execvp(words[0], words)
        if name == "mountpoint":
            return 0 if Path(words[-1]).is_symlink() else 1
        happens = HAPPENS | {"elapse": elapse}
        if words and words[0] in happens:  # for the tests
            with state() as now:
                happens[words[0]](now, words[1])
            return 0
        programs = {"gcloud": gcloud, "uv": uv, "gcsfuse": gcsfuse}
        programs |= {"curl": curl, "systemd-run": systemd_run, "shutdown": shutdown}
        programs[name](words)
        return 0
    except Refused as refused:
        print(refused.text, file=sys.stderr)
        return refused.code


if __name__ == "__main__":
    sys.exit(main())
