"""An imitation of Google: accounts, consent, and the part of the Calendar API that the story uses."""
