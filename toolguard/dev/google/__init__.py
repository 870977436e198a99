"""An imitation of Google: accounts, consent, and what the story uses of the Calendar API."""
