"""Run the command ``toolguard`` as ``python -m toolguard``."""

import sys

from toolguard.cli import main

sys.exit(main())
