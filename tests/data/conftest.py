"""What the tests of files share."""

import pytest

from tests.data.http_files import serving
from tests.data.kinds_of_files import FORMS, JSON, made


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict:
    """The store of the documents as JSON lines."""
    directory = tmp_path_factory.mktemp("wanted")
    (directory / "a.jsonl").write_bytes(JSON)
    return made(str(directory / "a.jsonl"), directory / "store")


@pytest.fixture(scope="module")
def server():
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    directory = tmp_path_factory.mktemp("forms")
    for name, raw in FORMS.items():
        (directory / name).write_bytes(raw)
    return directory
