"""The load: programs that request files, count and time the replies."""
