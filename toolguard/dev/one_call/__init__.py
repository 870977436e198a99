"""One call of a tool, with every challenge on the way: ``toolguard call``. Private."""
