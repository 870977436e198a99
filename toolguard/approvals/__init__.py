"""One call, approved by a person. Public."""
