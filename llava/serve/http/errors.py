"""What a request is refused with: one sentence, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """A request that gets no answer. It becomes `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what was wrong.

        Args:
            status: The HTTP status.
            message: One sentence for the client: what was wrong, and what to do.
            kind: OpenAI's `type`, such as `invalid_request_error` or `server_error`.
            param: The field of the request that it is about.
            code: A word for programs, such as `queue_full`.
            headers: More headers of the reply, such as Retry-After.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def content(self, request_id: str) -> dict[str, str | None]:
        """Return what the reply has under `error`."""
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
            "request_id": request_id,
        }
