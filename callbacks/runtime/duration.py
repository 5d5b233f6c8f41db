"""How long something takes, as text."""


def duration(seconds: float) -> str:
    """A time as text.

    >>> duration(7.4), duration(75), duration(3 * 3600 + 65)
    ('7 s', '1:15 min', '3:01 h')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
