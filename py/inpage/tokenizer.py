"""`inpage.text.tokenizer` by its old name."""

from .text.tokenizer import Detokenizer, Tokenizer, load_tokenizer

__all__ = ["Detokenizer", "Tokenizer", "load_tokenizer"]
