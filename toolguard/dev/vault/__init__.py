"""An imitation of the vault of Descope, and the pages on which users connect. Private."""
