"""Where a message that runs here came from, and who is told what becomes of it."""

from dataclasses import dataclass

from celery.app.task import Context


@dataclass(frozen=True, slots=True)
class Origin:
    """Which message runs here, by which claim, whom its outcome is told, where it came from."""

    id: str
    claim: str
    reply_to: str
    parent_id: str | None
    redelivered: bool = False

    @classmethod
    def of(cls, context: Context) -> "Origin":
        """Read it from a running task's context."""
        claim = (context.properties or {}).get("delivery_tag", "")
        redelivered = bool((context.delivery_info or {}).get("redelivered"))
        return cls(context.id, claim, context.reply_to or "", context.parent_id, redelivered)
