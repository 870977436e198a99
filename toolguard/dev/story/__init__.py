"""The story that the demo tells: its people, their browsers and clients, its steps. Private."""
