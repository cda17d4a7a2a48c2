"""The bytes on the wire: pure functions without I/O."""
