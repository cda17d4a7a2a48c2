"""The built-in transports, one file a mechanism; each loads through the same entry points as a stranger's."""
