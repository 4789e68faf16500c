"""What is hidden and what is predicted: arrays in, arrays out. Knows no text, no mesh, no model."""

from jaxmlm.masking.masking import Masked, Masking, Replace, Tokens, Vocab, mask_batch, mask_rows

__all__ = ["Masked", "Masking", "Replace", "Tokens", "Vocab", "mask_batch", "mask_rows"]
