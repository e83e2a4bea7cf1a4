"""The fixture of all how-tos."""

from helpers.reader import shell  # noqa: F401
