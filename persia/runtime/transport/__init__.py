"""One-way messages between processes: a header and raw arrays, refused where malformed, over ipc and tcp."""

from persia.runtime.transport.frames import FrameError, Kind, Message
from persia.runtime.transport.mailbox import Mailbox, Posted

__all__ = ["FrameError", "Kind", "Mailbox", "Message", "Posted"]
