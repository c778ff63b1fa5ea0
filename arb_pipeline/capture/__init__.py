"""Frames into rows: live from the venues' sockets, and again from recordings."""
