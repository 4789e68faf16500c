"""The commands of docs/tpu-gke.md that a user pastes, against commands that refuse what the real ones refuse."""

import re
import subprocess

from tests.tpu_scripts.scenarios import ROOT, wait_until
from tests.tpu_scripts.standin import program

FAKES = {
    "gcloud": 'mkdir -p "$WORKERS/$3"; export HOME=$WORKERS/$3; cd; exec bash -c "${7#--command=}"',
    "curl": "echo :",
    "git": '[ "$1" != clone ] || mkdir "$4"',
    "sudo": "[ ! -e ~/mounted ]",
    "mountpoint": "[ -e ~/mounted ]",
    "gcsfuse": "[ ! -e ~/mounted ] && touch ~/mounted",
    "uv": '[ "$1" = pip ] || mkdir .venv .venv/bin; cp "$FAKES/jaxmlm" "$FAKES/python" .venv/bin',
    "jaxmlm": 'echo "ran in ${PWD##*/}: $*"',
    "python": "",
}


def test_start_can_be_run_again(tmp_path):
    """As the page says to after a job that has ended with 75: the same checkout and mount, and the old log is kept."""
    page = (ROOT / "docs" / "tpu-gke.md").read_text()
    (start,) = re.findall(r"^start\(\) \{.*?^\}\n", page, re.MULTILINE | re.DOTALL)
    for name, line in FAKES.items():
        program(tmp_path / "bin" / name, line)
    for host in ("mlm-a", "mlm-b"):
        program(tmp_path / host / ".local" / "bin" / "uv", 'exec uv "$@"')
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "WORKERS": str(tmp_path), "FAKES": f"{tmp_path}/bin"}
    about = "PROJECT=p ZONE=z BUCKET=b URL=https://example.com/x.git COMMIT=c; group() { printf 'mlm-a\nmlm-b\n'; }\n"
    logs = [tmp_path / host / "log" for host in ("mlm-a", "mlm-b")]
    for times in (1, 2):
        done = subprocess.run(["bash", "-c", about + start + "start"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        wait_until(lambda n=times: all(log.exists() and len(log.read_text().splitlines()) >= n for log in logs), 10)
    for i, log in enumerate(logs):
        ran = log.read_text().splitlines()
        assert len(ran) == 2 and ran[0] == ran[1] and ran[0].startswith("ran in jaxmlm: pretrain "), ran
        assert ran[0].endswith(f"--coordinator mlm-a:8482 --processes 2 --process {i}")
        assert {path.name for path in log.parent.iterdir()} == {".local", "jaxmlm", "log", "mounted"}
