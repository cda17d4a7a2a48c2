"""What several built-in transports share."""
