"""Settings -> plain arguments and built parts; below this floor nobody sees the settings."""
