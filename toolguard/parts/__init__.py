"""What the parts of a guard run on: variables, files, extras, start and end, readiness. Private."""
