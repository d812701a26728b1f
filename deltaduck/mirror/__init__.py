"""The published ``_delta_log``: what every other Delta reader sees of a table."""

from deltaduck.mirror.mirror import Mirror

__all__ = ["Mirror"]
