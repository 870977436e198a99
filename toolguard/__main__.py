"""What does ``python -m toolguard`` do? The same as ``toolguard``."""

import sys

from toolguard.cli import main

sys.exit(main())
