"""`python -m tests.soak --minutes 60`: a whole system under load, and whether it stays as it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.report import print_report
from tests.soak.soaking import soak


def main() -> int:
    """Soak, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        report = soak(Path(scratch), minutes=arguments.minutes)
    print_report(report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
