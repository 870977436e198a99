"""What a guard asks of what it is made of, and how its settings are read. Private."""
