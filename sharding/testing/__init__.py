"""Tools for the tests of projects that use sharding."""
