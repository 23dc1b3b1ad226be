"""Where a message that runs here came from, and who is told what becomes of it."""

from dataclasses import dataclass

from celery.app.task import Context

from modelyard.names import DELIVERIES_HEADER, is_shadow, member_of


@dataclass(frozen=True, slots=True)
class Origin:
    """Which message runs here, by which claim, whom its outcome is told, where it came from."""

    id: str
    claim: str
    reply_to: str
    parent_id: str | None
    redelivered: bool = False
    deliveries: int = 0
    """How many workers that had this very call were lost."""

    @property
    def is_part(self) -> bool:
        """Whether its id is no request's: it is a member's or a shadow's."""
        return is_part(self.id, self.parent_id)

    @classmethod
    def of(cls, context: Context) -> "Origin":
        """Read it from a running task's context."""
        claim = (context.properties or {}).get("delivery_tag", "")
        redelivered = bool((context.delivery_info or {}).get("redelivered"))
        deliveries = int(context.get(DELIVERIES_HEADER) or 0)
        return cls(
            context.id, claim, context.reply_to or "", context.parent_id, redelivered, deliveries
        )


def is_part(id: str, parent_id: str | None) -> bool:
    """Return whether a message is that of a member, a piece or a shadow."""
    return is_shadow(id, parent_id) or member_of(id, parent_id) is not None
