"""The bytes on the wire: pure functions, no I/O."""
