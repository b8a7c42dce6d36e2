"""The tiny model of `edgellm.conversion.sample`, under the name that tests use."""

from edgellm.conversion.sample import Tiny, entries, random_tensor, tensors, vocabulary, write

__all__ = ["Tiny", "entries", "random_tensor", "tensors", "vocabulary", "write"]
