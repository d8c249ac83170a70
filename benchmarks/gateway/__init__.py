"""What delivery costs, with and without sockets, beside a bare Starlette of the same frames."""
