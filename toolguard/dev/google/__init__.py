"""An imitation of Google: accounts, consent, and the calendar of the story. Private."""
