"""Moves from end to end: real movers between real servers, with the application's own models."""
