"""Inputs by the ten thousand: `make fuzz`, or a kind of them with the seed of an earlier run.

python tests/fuzzing [--only answers|envelopes|lines|requests|stale]… [--seed N] [--count N]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzing.command import main

if __name__ == "__main__":
    main()
