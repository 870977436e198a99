"""Does a server leak the tokens of its callers? Public, through ``toolguard.testing``."""

from toolguard.testing.leaks.assertion import LeakError, assert_no_leaks, assert_no_leaks_async

__all__ = ["LeakError", "assert_no_leaks", "assert_no_leaks_async"]
