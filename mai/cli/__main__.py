"""``python -m mai.cli`` is the `mai` command."""

import sys

from mai.cli import main

if __name__ == "__main__":
    sys.exit(main())
