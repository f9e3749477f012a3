"""Calls: from the bytes of a request to the bytes of a response, over several transports."""
