"""Delivery: attachments, and the connections they are delivered over."""

from gateway.delivery.attachment import Attachment
from gateway.delivery.connection import Connection
from gateway.delivery.shaping import ShapedAttachment

__all__ = ["Attachment", "Connection", "ShapedAttachment"]
