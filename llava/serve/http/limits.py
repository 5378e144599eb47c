"""What a client may ask of the service at most. Each is a flag of `llava.serve.api`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that one request may have."""

    max_request_mib: int = 256
    """The whole body, where it is a form with files."""
    max_json_mib: int = 64
    """The whole body otherwise: reading JSON keeps everybody else waiting, some 30 ms a MiB."""
    max_megapixels: int = 100
    """Of one picture, width times height; it is checked before the picture is decoded."""
    max_pictures: int = 16
    """In one conversation."""
    max_uploads: int = 500
    """Pictures in one request for alt texts."""
    max_prompt_tokens: int | None = None
    """None for the model's context."""
    max_new_tokens: int = 2048
    """The longest answer."""
    max_seconds: float = 120.0
    """From the end of the request's body to the end of the answer, waiting included."""
    max_receive_seconds: float = 60.0
    """From the request's headers to the end of its body."""
    max_address_seconds: float = 10.0
    """To fetch a picture from an address."""
    max_address_mib: int = 32
    """A picture from an address, as a file."""

    @property
    def max_pixels(self) -> int:
        """The same in pixels."""
        return self.max_megapixels * 10**6

    @property
    def max_address_bytes(self) -> int:
        """The same in bytes."""
        return self.max_address_mib * 2**20
