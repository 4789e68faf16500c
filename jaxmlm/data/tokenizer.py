"""SentencePiece with fixed special ids, exact word starts and exact character offsets."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sentencepiece

from jaxmlm.errors import InputError

PAD, UNK, CLS, SEP, MASK = range(5)
_SPACE = "\u2581"  # SentencePiece's mark of a word start
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A trained SentencePiece model.

    Ids 0 to 4 are pad, unk, cls, sep and mask in every model that `train` makes. `special` [V] bool marks them,
    `word_starts` [V] bool the pieces that start a word.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size: int = self._sp.get_piece_size()
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = PAD, UNK, CLS, SEP, MASK
        pieces = [self._sp.id_to_piece(i) for i in range(self.size)]
        if pieces[:5] != ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]:
            raise InputError(f"the tokenizer's first five pieces are {pieces[:5]}: train it with jaxmlm prepare")
        self.special = np.arange(self.size) <= MASK
        self.word_starts = np.array([piece.startswith(_SPACE) for piece in pieces])

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer in this `tokenizer.model` file."""
        return cls(Path(path).read_bytes())

    @classmethod
    def train(cls, texts: Iterable[str], size: int, lowercase: bool = True) -> "Tokenizer":
        """Train a unigram model of `size` pieces on lines of text; NFKC normalised, lower-cased if asked."""
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line for text in texts for line in _clean(text).split("\n") if line),
                model_writer=out,
                vocab_size=size,
                model_type="unigram",
                normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
                character_coverage=0.9995,
                pad_id=PAD,
                unk_id=UNK,
                bos_id=CLS,
                eos_id=SEP,
                pad_piece="<pad>",
                unk_piece="<unk>",
                bos_piece="<cls>",
                eos_piece="<sep>",
                control_symbols=["<mask>"],
                num_threads=1,  # more threads change the result from run to run
                minloglevel=2,
                max_sentence_length=1 << 20,
            )
        except RuntimeError as e:
            most = re.search(r"value <= (\d+)", str(e))
            if "Vocabulary size" in str(e) and most:
                raise InputError(
                    f"a vocabulary of {size} pieces is too large for this text, which gives at most {most[1]}: "
                    f"set data.vocab to {most[1]} or less, or give more text"
                ) from e
            if few := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(e)):
                raise InputError(
                    f"a vocabulary of {size} pieces is too small for the characters of this text: set data.vocab to "
                    f"{few[1]} or more"
                ) from e
            raise InputError(
                f"no tokenizer can be trained on this text: is it empty? ({str(e).splitlines()[-1]})"
            ) from e
        return cls(out.getvalue())

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return self._sp.encode(_clean(text))

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of several texts, without special tokens."""
        return self._sp.encode([_clean(text) for text in texts])

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and, for each, the characters [begin, end) of the original text that it stands for.

        SentencePiece counts UTF-8 bytes, and gives a character that became several pieces (an ellipsis three full
        stops) to the last of them; here the earlier ones get it too. A piece that only marks a word start has none.
        """
        text = _clean(text)
        pieces = self._sp.encode(text, return_type="proto").pieces
        # Character index of each byte, and of the end: bytes 0b10xxxxxx continue a character.
        raw = np.frombuffer(text.encode("utf-8"), np.uint8)
        char = np.concatenate([np.cumsum((raw & 0xC0) != 0x80) - 1, [len(text)]]).astype(int)
        ids, offsets = [], []
        for piece in pieces:
            begin, end = int(char[piece.begin]), int(char[piece.end])
            while begin < end and text[begin].isspace():  # a word's first piece carries the space before it
                begin += 1
            if begin == end < len(text) and piece.piece.strip(_SPACE):
                end += 1
            ids.append(piece.id)
            offsets.append((begin, end))
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; special tokens are left out."""
        return self._sp.decode([int(i) for i in ids if i > MASK or i == UNK])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of these ids; a leading low line marks a word start."""
        return [self._sp.id_to_piece(int(i)) for i in ids]


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8, and NUL ends a C string: both become the replacement character."""
    return _SURROGATE.sub("\ufffd", text).replace("\0", "\ufffd")
