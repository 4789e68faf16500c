"""`python -m jaxmlm` is the command `jaxmlm`."""

import sys

from jaxmlm.cli import main

if __name__ == "__main__":
    sys.exit(main())
