"""One of many: found in what clusters say, met on real sockets, refused by name, run as two processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxmlm import cli
from jaxmlm.errors import InputError
from jaxmlm.parallel.clusters import ClusterSpec, find
from jaxmlm.parallel.hosts import Hosts
from jaxmlm.parallel.rendezvous import Member, meet, refuse_different
from jaxmlm.synthetic import world

SLURM = {"SLURM_JOB_ID": "4097", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
TINY = """
from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs.run import Run
from jaxmlm.training import Loop
def config():
    return Run(data=Data(text="sample:300", vocab=300, length=16, valid=0.05),
               model=EncoderConfig(layers=1, width=8, heads=2), loop=Loop(steps=2, batch=4, log_every=1))
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def nothing(name: str) -> None:
    return None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({**SLURM, "SLURM_STEP_NODELIST": "node7"}, ClusterSpec("node7:61441", 4, 2)),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu-a[003-006,9],gpu-b"}, ClusterSpec("gpu-a003:61441", 4, 2)),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu-b,gpu-a[3,4]"}, ClusterSpec("gpu-b:61441", 4, 2)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, ClusterSpec("a:8482", 2, 1, ("a", "b"))),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (
            {"TPU_WORKER_HOSTNAMES": "c,d", "TPU_WORKER_ID": "1", "MEGASCALE_NUM_SLICES": "3",
             "MEGASCALE_SLICE_ID": "2", "MEGASCALE_COORDINATOR_ADDRESS": "a:8080"},
            ClusterSpec("a:8482", 6, 5),
        ),
    ],
)  # fmt: skip
def test_a_cluster_says_who_is_who(environment, expected):
    assert find(environment, nothing) == expected


def test_a_list_of_hosts_that_names_none_is_refused():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": ""}
    with pytest.raises(InputError, match="SLURM_STEP_NODELIST is ''"):
        find(slurm)


def test_a_cloud_tpu_says_it_in_its_metadata():
    said = {"agent-worker-number": "1", "worker-network-endpoints": "w:0:10.0.0.1,w:1:10.0.0.2"}
    assert find({}, said.get) == ClusterSpec("10.0.0.1:8482", 2, 1, ("10.0.0.1", "10.0.0.2"))
    said["tpu-env"] = (
        "ZONE: 'z'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.9.9'\n"
    )
    assert find({}, said.get) == ClusterSpec("10.0.9.9:8482", 4, 3)
    assert find({"JAX_PLATFORMS": "cpu"}, said.get) is None
    assert find({"TPU_SKIP_MDS_QUERY": "1"}, said.get) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "a:1"}, "go together"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "takes HOST:PORT, got 'a': try a:8482"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "counts from 0 and is below"),
    ],
)
def test_wrong_options_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        Hosts(**given)


def met(members: list[Member], processes: int, wait: float = 10.0) -> list:
    """What each of these members hears when all of them start at once."""
    port = free_port()

    def one(member: Member):
        try:
            return meet(ClusterSpec(f"localhost:{port}", processes, member.process, ("a", "b", "c")), member, wait)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, members))


def test_hosts_that_meet_hear_of_each_other():
    members = [Member(i, f"h{i}", {"jax": "1"}) for i in (2, 0, 1)]
    assert met(members, 3) == [[members[1], members[2], members[0]]] * 3


def test_a_host_that_is_missing_is_named_on_all_others():
    heard = met([Member(0, "h0", {}), Member(2, "h2", {})], 3, wait=1.0)
    assert heard[0] == (
        "1 of 3 hosts did not come within 1 s: host 1 (b): start the same command on every host"
    )  # fmt: skip
    assert heard[1] in (heard[0], heard[1]) and "did not come" in heard[1] or "does not answer" in heard[1]


def test_a_number_given_twice_is_refused_by_name():
    heard = met([Member(0, "h0", {}), Member(1, "h1", {}), Member(1, "h1", {})], 4, wait=5.0)
    assert "host 1 (h1) gave a --process that is taken" in heard[0]


def test_a_stranger_on_the_port_is_ignored():
    port, me = free_port(), Member(0, "h0", {})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, ClusterSpec(f"localhost:{port}", 2, 0), me, 10.0)
        while True:
            try:
                with socket.create_connection(("localhost", port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        other = Member(1, "h1", {"jax": "1"})
        assert meet(ClusterSpec(f"localhost:{port}", 2, 1), other, 10.0) == [me, other] == first.result()


def test_a_coordinator_that_does_not_answer_is_one_line(capsys):
    port = free_port()
    words = ["--coordinator", f"localhost:{port}", "--processes", "2", "--process", "1", "--wait", "1"]
    assert cli.main(["pretrain", "nowhere.py", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"jaxmlm: the coordinator localhost:{port} does not answer after 1 s (Connection refused)")
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of this host cannot be opened"):
            meet(ClusterSpec(f"localhost:{port}", 2, 0), Member(0, "h0", {}), 1.0)


def test_the_minority_is_what_differs():
    told = [(f"host {i}", {"jax": "1", "flax": "1"}) for i in range(6)]
    told[3] = ("host 3", {"jax": "1"})
    with pytest.raises(InputError, match="flax is missing on host 3, and 1 on 5 others: install"):
        refuse_different(told, "versions", "install the same")
    refuse_different(told[:3], "versions", "")


def test_a_fall_back_to_the_cpu_is_refused(capsys):
    assert cli.main(["pretrain", "nowhere.py", "--require", "tpu"]) == 2
    assert "--require tpu: JAX sees cpu here" in capsys.readouterr().err


Process = subprocess.Popen[str]
CPU = os.environ | {"JAX_PLATFORMS": "cpu"}


def written(directory: Path) -> Path:
    """The directory, with the configuration in it."""
    (directory / "tiny.py").write_text(TINY)
    return directory


def two(
    tmp_path: Path,
    *words: str,
    second: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "jaxmlm", "pretrain", "tiny.py"),
    during: Callable[[list[Process]], None] = lambda processes: None,
    each_in: tuple[str, str] = ("", ""),
) -> list[subprocess.CompletedProcess]:
    """`jaxmlm pretrain` or another program as two processes, each in a directory, the second with further words."""
    command = [sys.executable, *program, *words, "--coordinator", f"localhost:{free_port()}", "--processes", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []
    for i in range(2):
        words = (*command, "--process", str(i), *(second if i else ()))
        started.append(subprocess.Popen(words, cwd=written(tmp_path / each_in[i]), env=CPU, **pipes))
    try:
        during(started)
        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(lambda process: process.communicate(timeout=900), started))
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *one) for p, one in zip(started, said, strict=True)
    ]  # fmt: skip


@pytest.mark.slow("starts two processes")
def test_two_processes_train_one_run_and_the_first_one_speaks(tmp_path):
    first, other = two(tmp_path, "--json", "--workdir", "run")
    assert (first.returncode, other.returncode) == (0, 0), first.stderr + other.stderr
    rows = json.loads(first.stdout.splitlines()[-1])["rows"]
    assert [row["stage"] for row in rows] == ["pretrain", "heldout"]
    assert "jaxmlm" not in other.stdout and "rows" not in other.stdout and "pretrain" not in other.stderr
    assert (tmp_path / "run" / "DONE").exists()
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]


@pytest.mark.slow("starts two processes")
def test_other_configurations_and_another_disk_are_refused_by_name(tmp_path):
    name = socket.gethostname()
    for done in two(tmp_path, "--workdir", "run", second=("--loop.steps", "3")):
        assert done.returncode == 2
        assert "the hosts have different configurations: loop.steps is 3 on host 1" in done.stderr
        assert f"host 1 ({name})" in done.stderr and "and 2 on host 0" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow("starts two processes, twice")
def test_a_text_that_only_one_host_has_or_has_otherwise_is_refused_on_both(tmp_path):
    """Else they trained on a mixture, and waited for each other where one text is longer."""
    hosts = ("host0", "host1")
    for number, host in enumerate(hosts):
        (tmp_path / host).mkdir()
        (tmp_path / host / "text.txt").write_text("\n\n".join(world.documents(number, 100)))
    words = ("--workdir", str(tmp_path / "run"), "--data.text", "text.txt", "--data.store", "store")
    for done in two(tmp_path, *words, each_in=hosts):
        assert done.returncode == 2 and "the hosts have different texts: tokenizer is" in done.stderr, done.stderr
    assert not (tmp_path / "run" / "run.json").exists()
    shutil.rmtree(tmp_path / "host1")
    (tmp_path / "host1").mkdir()
    first, other = two(tmp_path, *words, each_in=hosts)
    why = "no text file at 'text.txt': give the path"
    assert other.returncode == 2 and f"jaxmlm: {why}" in other.stderr
    last = first.stderr.splitlines()[-1]
    assert first.returncode != 0 and last.startswith(f"jaxmlm: process 1 on {socket.gethostname()}: {why}")


@pytest.mark.slow("starts two processes, three times")
def test_shares_of_a_text_do_not_wait_for_each_other_and_are_merged_once(tmp_path):
    prepare = ("-m", "jaxmlm", "prepare", "tiny.py")
    for share in ("0/2", "1/2"):  # the second process is not there: a share is the work of one machine
        words = ["--shard", share, "--coordinator", "localhost:1", "--processes", "2", "--process", share[0]]
        done = subprocess.run([sys.executable, *prepare, *words], cwd=written(tmp_path), env=CPU, timeout=300)
        assert done.returncode == 0
    for done in two(tmp_path, "--merge", program=prepare):
        assert done.returncode == 0, done.stderr


@pytest.mark.slow("starts two processes")
def test_two_processes_stop_at_one_step_when_only_the_second_is_told(tmp_path):
    def during(processes: list[Process]) -> None:
        until = time.monotonic() + 200
        while not (tmp_path / "run" / "log.jsonl").exists():
            assert time.monotonic() < until and processes[0].poll() is None
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)

    steps = ("--loop.steps", "1000000", "--loop.save-every", "1000000", "--most-epochs", "1000000")
    first, other = two(tmp_path, "--workdir", "run", *steps, during=during)
    assert (first.returncode, other.returncode) == (75, 75), first.stderr + other.stderr
    (saved,) = (path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    stopped = f"stopped by a signal at step {saved}, and saved: run the same command again"
    assert stopped in first.stderr and stopped in other.stderr
    assert "SIGTERM: stopping" not in first.stderr and "SIGTERM: stopping" in other.stderr


@pytest.mark.slow("starts two processes, twice")
def test_when_process_0_is_killed_the_other_says_so_and_both_resume(tmp_path):
    def during(processes: list[Process]) -> None:
        until = time.monotonic() + 200
        while not (tmp_path / "run" / "checkpoints" / "20").exists():
            assert time.monotonic() < until and processes[0].poll() is None
            time.sleep(0.02)
        processes[0].kill()

    steps = ("--loop.save-every", "20", "--loop.log-every", "20", "--most-epochs", "1000000", "--loop.steps")
    killed, other = two(tmp_path, "--workdir", "run", *steps, "100", during=during)
    assert killed.returncode == -signal.SIGKILL and other.returncode != 0
    assert other.stderr.splitlines()[-1] == (
        f"jaxmlm: process 0 on {socket.gethostname()} has ended, and no other can continue without it: run the same "
        "command again on all hosts"
    )
    for done in two(tmp_path, "--workdir", "run", *steps, "100"):
        assert done.returncode == 0 and "has ended" not in done.stderr, done.stderr


TOLD = """
import os, signal, sys
from pathlib import Path
from jaxmlm.config import from_flags
from jaxmlm.errors import InputError
from jaxmlm.parallel import hosts
from jaxmlm.preemption import all_hosts_stop, stop_requested, stoppable
options = from_flags(hosts.Hosts, sys.argv[1:])
with stoppable():
    if options.process:
        os.kill(os.getpid(), signal.SIGTERM)
    hosts.start(options)
    try:
        hosts.check_shared_directory(Path(f"disk{options.process}"))
    except InputError as error:
        print(error)
    print(hosts.broadcast_from_primary(f"said by {options.process}"))
    for step in range(1000):
        if all_hosts_stop():
            break
    print(step, stop_requested())
hosts.exit_process(0)
"""


@pytest.mark.slow("starts two processes")
def test_a_signal_before_they_joined_and_a_disk_that_one_does_not_see(tmp_path):
    first, other = two(tmp_path, program=("-c", TOLD))
    name = socket.gethostname()
    blind = f" of host 0 ({name}) is not seen by host 1 ({name}): the hosts do not share that disk: name a --workdir"
    assert not (tmp_path / "disk0").exists()
    for i, done in enumerate((first, other)):
        refused, said, stopped = done.stdout.splitlines()[-3:]  # before them Gloo may speak
        assert refused.startswith(f"disk{i}{blind}") and said == "said by 0"
        assert stopped == f"{first.stdout.split()[-2]} {bool(i)}" != f"999 {bool(i)}"
