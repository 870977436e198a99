"""How are properties searched for counterexamples?

``--hypothesis-profile=ci`` searches as CI does, ``--hypothesis-profile=deep`` for hours.
"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is no counterexample. CI searches longer, each time in the same way.
settings.register_profile("local", deadline=None, max_examples=10)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=2_000)
settings.load_profile("ci" if os.environ.get("CI") else "local")
