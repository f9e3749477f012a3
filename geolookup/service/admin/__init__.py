"""The admin service: its server, its client and their messages."""
