"""Dates and times as events write them."""

import re
from datetime import UTC, datetime, timedelta

# With ranges, because those of datetime differ between Python versions. The schema has the same pattern.
_RFC3339 = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)


def parse_time(literal: str) -> datetime | None:
    """The moment that an RFC 3339 date and time with an offset names, in UTC; None when it is none in the years 1 to 9999."""
    if not _RFC3339.fullmatch(literal):
        return None
    leap = literal[17:19] == "60"  # which datetime does not know: it is the second after it, as in Postgres
    readable = f"{literal[:17]}59{literal[19:]}" if leap else literal
    try:
        return (datetime.fromisoformat(readable.upper()) + timedelta(seconds=leap)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
