"""Model files in and out."""

from edgellm.conversion.convert import Conversion, convert

__all__ = ["Conversion", "convert"]
