"""Prove the promise, the long way: `make chaos`, or one of its parts with a seed of an earlier run.

python tests/chaos [kills|prefork|restarts|broker|rolling|disk]… [--seed N] [--seconds S] [--celery
PYTHON]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.command import main

if __name__ == "__main__":
    main()
