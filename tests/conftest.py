"""How are properties searched for counterexamples?

``--hypothesis-profile=ci`` searches as CI does.
"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is no counterexample. CI searches longer, each time in the same way.
settings.register_profile("local", deadline=None, max_examples=10)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
