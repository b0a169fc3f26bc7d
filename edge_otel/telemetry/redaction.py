"""What texts that leave their place must not tell."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"//[^/\s]*@")
_TOKEN = re.compile(r"(\bewt_\w+\.|\beyJ|\bBearer )[^\s\"',;]+")
"""Of a worker, whose id is public; any JWT; and whatever else was in a header."""


def without_user_info(text: str) -> str:
    """Return a text, such as an exception's, in which no URL names a user or password: ``//…@`` stands there."""
    return _USER_INFO.sub("//…@", text)


def without_secrets(text: str) -> str:
    """Return a text in which no URL names a user or password, and no token can be read."""
    return _TOKEN.sub(r"\1…", without_user_info(text))
