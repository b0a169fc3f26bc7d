"""What texts that leave their place must not tell."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"//[^/\s]*@")


def without_user_info(text: str) -> str:
    """Return a text, such as an exception's, in which no URL names a user or password: ``//…@`` stands there."""
    return _USER_INFO.sub("//…@", text)
