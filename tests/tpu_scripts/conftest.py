"""Worlds for the tests of the TPU scripts."""

import pytest

from tests.tpu_scripts.scenarios import World, stages


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("tpu"))


@pytest.fixture
def world(worlds, tmp_path):
    """A world at a stage; what runs in it is ended afterwards."""
    made = []

    def at(stage: str, **config) -> World:
        made.append(World(tmp_path / "world", worlds[stage].package, worlds[stage]))
        with open(made[-1].directory / "config.env", "a") as f:
            f.writelines(f"{name}='{value}'\n" for name, value in config.items())
        return made[-1]

    yield at
    for one in made:
        one.close()
