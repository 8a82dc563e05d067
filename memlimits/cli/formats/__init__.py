"""What recordings are converted to."""
