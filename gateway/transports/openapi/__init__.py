"""What the HTTP interface is, as an OpenAPI document."""

from gateway.transports.openapi.document import openapi_document

__all__ = ["openapi_document"]
