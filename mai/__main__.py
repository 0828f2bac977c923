"""``python -m mai`` is the `mai` command, where that is not on the path."""

import sys

from mai.cli import main

if __name__ == "__main__":
    sys.exit(main())
