"""What the parts of a guard run on: variables, extras, start and end, readiness. Private."""
