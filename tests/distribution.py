"""What a wheel and an sdist hold, before they are published: python tests/distribution.py DIRECTORY"""

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

MOST = 1 << 20
"""Bytes of either: the package is text."""
IN_WHEEL = ("jaxmlm/py.typed", "jaxmlm/studies/page.css", "jaxmlm/cli.py")
IN_SDIST = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "jaxmlm/py.typed",
    "configs/quickstart.py",
)  # fmt: skip
METADATA = ("Name: jaxmlm", "License-Expression: Apache-2.0", "Requires-Python: >=3.11", "Classifier: Typing :: Typed")
SUFFIXES = {".py", ".css", ".typed", ".md", ".txt", ".toml", ".cff", ".json", ""}
"""Of the files that belong into a distribution."""


def faults_of_wheel(path: Path) -> list[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        about = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(f"{about}/METADATA").decode()
        starts = wheel.read(f"{about}/entry_points.txt").decode()
    wanted = (*IN_WHEEL, f"{about}/licenses/LICENSE")
    faults = [f"{path.name} lacks {name}" for name in wanted if name not in names]
    faults += [f"{path.name} has {name}" for name in names if name.split("/")[0] not in ("jaxmlm", about)]
    faults += [f"{path.name} says nothing of {line!r}" for line in METADATA if line not in metadata.splitlines()]
    if "jaxmlm = jaxmlm.cli:main" not in starts:
        faults.append(f"{path.name} installs no command jaxmlm")
    return faults + _faults_of_any(path, names)


def faults_of_sdist(path: Path) -> list[str]:
    """What is wrong with an sdist."""
    with tarfile.open(path) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    faults = [f"{path.name} lacks {name}" for name in IN_SDIST if name not in names]
    return faults + _faults_of_any(path, names)


def _faults_of_any(path: Path, names: list[str]) -> list[str]:
    faults = [f"{path.name} has {name}" for name in names if PurePosixPath(name).suffix not in SUFFIXES]
    if path.stat().st_size > MOST:
        faults.append(f"{path.name} has {path.stat().st_size:,} bytes, more than {MOST:,}")
    return faults


def main(directory: Path) -> int:
    """Print what is there and what is wrong; 1 if something is."""
    wheels, sdists = sorted(directory.glob("*.whl")), sorted(directory.glob("*.tar.gz"))
    faults = [] if len(wheels) == len(sdists) == 1 else [f"{directory} should have one wheel and one sdist"]
    faults += [fault for wheel in wheels for fault in faults_of_wheel(wheel)]
    faults += [fault for sdist in sdists for fault in faults_of_sdist(sdist)]
    for path in (*wheels, *sdists):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    print("\n".join(faults) or "both hold what they should")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
