"""The built-in transports, one file a mechanism. They load through the same entry points as any other plugin."""
