"""Provider wire protocols, pure: bytes in, facts out. No sockets, no clock, no async, bounded memory on hostile input."""
