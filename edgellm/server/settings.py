"""What an operator decides about a server."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Names, limits and who may come in. `edgellm serve --help` explains each as an option.

    Raises
    ------
    ValueError
        If a limit is out of range.
    """

    name: str = "edgellm"
    aliases: tuple[str, ...] = ()  # other names that requests may call the model by; "*": any
    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None  # names that a request may address us by; None: any
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 2 * MIB
    max_buffered_bytes: int = 128 * MIB  # of the bodies that are being read and parsed
    max_tokens: int | None = None  # most that a request may ask for; None: what the context holds
    default_max_tokens: int = 512  # of chat, as `Model.chat`
    default_temperature: float = 1.0  # as OpenAI's
    draft: str | None = None  # "lookup": guess tokens from the text so far and verify them together
    max_per_client: int | None = None  # requests of one client at the same time
    timeout_s: float = 600.0  # of a whole request
    body_timeout_s: float = 30.0  # for the body to arrive
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_body_bytes", "max_buffered_bytes", "max_tokens", "default_max_tokens", "max_per_client",
            "timeout_s", "body_timeout_s",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not self.default_temperature >= 0:
            raise ValueError(f"default_temperature must be at least 0, got {self.default_temperature}")
        if self.draft not in (None, "lookup"):
            raise ValueError(f"draft must be 'lookup' or None, got {self.draft!r}")
        if any(len(key) < 8 or not key.isascii() or not key.isprintable() for key in self.api_keys):
            raise ValueError("an API key has at least 8 printable ASCII characters")

    def knows(self, model: str) -> bool:
        """Whether a request may call the model so."""
        return model == self.name or model in self.aliases or "*" in self.aliases

    def admits(self, key: str) -> bool:
        """Whether a key is one of ours, in a time that does not tell which or how nearly."""
        given = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = False
        for own in self.api_keys:
            found |= hmac.compare_digest(given, hashlib.sha256(own.encode()).digest())
        return found
