"""Public ids: what addresses and the API show instead of primary keys."""

import secrets
import string

_ALPHABET = string.digits + string.ascii_letters


def public_id() -> str:
    """22 random characters (131 bits) of [0-9A-Za-z]: one word for a double click, no option on a command line."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(22))
