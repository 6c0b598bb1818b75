"""The supervisor's process: `python -m alertrec.embedded DATA_DIR`; only `alertrec.embedded.servers` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from alertrec.embedded import supervisor

if __name__ == "__main__":
    supervisor.main(Path(sys.argv[1]))
