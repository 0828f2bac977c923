"""``python -m benchmarks``: run all benchmarks and print one table."""

from .harness import main

raise SystemExit(main())
