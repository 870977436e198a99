"""How are properties searched for counterexamples?"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is no counterexample. In CI the same search each time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
