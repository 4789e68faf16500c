"""What messages advise to install: a command that works where the package lies."""

import re
from pathlib import Path

import pytest

from jaxmlm import wording
from jaxmlm.wording import install_command

PACKAGE = Path(wording.__file__).parent


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    directory = tmp_path / "checkout"
    (directory / "docs").mkdir(parents=True)
    (directory / "pyproject.toml").touch()
    monkeypatch.setattr(wording, "_CHECKOUT", directory)
    return directory


def test_an_extra_of_a_checkout_is_installed_from_it(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert install_command("hf") == "pip install -e '.[hf]'"
    monkeypatch.chdir(checkout / "docs")
    assert install_command("hf") == f"pip install -e '.[hf]' in the checkout {checkout}"


def test_an_extra_of_an_installed_package_is_installed_by_its_name(checkout):
    (checkout / "pyproject.toml").unlink()
    assert install_command("hf") == "pip install 'jaxmlm[hf]'"


def test_no_message_has_a_command_of_its_own():
    texts = {file.name: file.read_text() for file in PACKAGE.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"jaxmlm\[", text)] == ["wording.py"]
