"""What a client may ask of the service at most. Each is a flag of `llava.serve.api`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that one request may have."""

    max_request_bytes: int = 256 * 2**20
    """The whole body."""
    max_pixels: int = 100_000_000
    """Of one picture, width times height; it is checked before the picture is decoded."""
    max_pictures: int = 16
    """In one conversation."""
    max_uploads: int = 500
    """Pictures in one request for alt texts."""
    max_prompt_tokens: int | None = None
    """None for the model's context."""
    max_new_tokens: int = 1024
    """The longest answer."""
    max_seconds: float = 120.0
    """From the end of the request's body to the end of the answer, waiting included."""
    max_receive_seconds: float = 60.0
    """From the request's headers to the end of its body."""
    max_address_seconds: float = 10.0
    """To fetch a picture from an address."""
    max_address_bytes: int = 32 * 2**20
    """A picture from an address, as it comes."""
