"""`python -m alertrec.scheduled_retraining [--force]`: retrain if the champion is old enough, as from a cron job.

Beat does the same each week by itself; this is for those who schedule by other means. The exit status is not zero
where training failed, and zero where there was nothing to do.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from alertrec.cli import main

    main(["train", "--local", *sys.argv[1:]])
