"""Delivery: attachments, and the connections they are delivered over."""

from gateway.delivery.attachment import Attachment
from gateway.delivery.client import Client, Clients, Quota, take_all
from gateway.delivery.connection import Connection

__all__ = ["Attachment", "Client", "Clients", "Connection", "Quota", "take_all"]
