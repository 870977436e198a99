"""What a guard asks of its verifier, its connection provider and what these stand on. Private."""
