"""``python -m dse`` is the command ``dse``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from dse.cli import main

    sys.exit(main())
