"""Values of a sweep as a command line types them."""

import re

_INTERVAL = re.compile(r"(?:tag\(log,)?interval\(([^,]+),([^,)]+)\)+")


def values_of(override):
    """An override of a sweep with each of its values; of an interval with both ends."""
    key, value = override.split("=", 1)
    interval = _INTERVAL.fullmatch(value)
    return [f"{key}={one}" for one in (interval.groups() if interval else value.split(","))]
