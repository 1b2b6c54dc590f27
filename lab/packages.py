"""`python -m lab.packages requirements.txt ...`: exit status 1, and what this environment lacks."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement


def lacking(paths):
    """The requirements in the files that are not met here, each with the version that is."""
    lines = [line.partition("#")[0] for path in paths for line in Path(path).open()]
    for need in (Requirement(line) for line in lines if line.strip()):
        try:
            have = version(need.name)
        except PackageNotFoundError:
            have = "none"
        if have == "none" or not need.specifier.contains(have, prereleases=True):
            yield f"{need} (has {have})"


if __name__ == "__main__":
    if found := list(lacking(sys.argv[1:])):
        sys.exit(f"{sys.prefix} lacks {', '.join(found)}. Install that, or leave out ACTIVE=1.")
