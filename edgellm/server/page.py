"""The page that shows tokens as they come, and what its browser may do for it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources


@functools.cache
def page() -> tuple[str, str]:
    """The page, and a content security policy that allows its own script and style and nothing else.

    Examples
    --------
    >>> text, policy = page()
    >>> policy.split("; ")[0]
    "default-src 'none'"
    """
    text = resources.files("edgellm.server").joinpath("page.html").read_text(encoding="utf-8")
    allowed = ["default-src 'none'", "connect-src 'self'", "img-src data:"]
    for tag in ("script", "style"):
        found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        if found is not None:
            digest = base64.b64encode(hashlib.sha256(found[1].encode("utf-8")).digest()).decode("ascii")
            allowed.append(f"{tag}-src 'sha256-{digest}'")
    return text, "; ".join([*allowed, "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"])
