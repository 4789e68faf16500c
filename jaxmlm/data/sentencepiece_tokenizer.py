"""SentencePiece with fixed special ids, exact word starts and exact character offsets."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from jaxmlm.data.tokenizer import SPECIAL, clean, pieces_of
from jaxmlm.data.word_boundaries import SPACE, boundaries
from jaxmlm.errors import InputError, reading
from jaxmlm.textfiles import read_bytes

LEAST_PIECES = 16
"""Tokens of the smallest vocabulary that is trained."""
LEAST_WITH_BYTES = 300
"""The same where 256 of them are bytes."""
PAD = 0
UNK = 1
CLS = 2
SEP = 3
MASK = 4


class SentencePieceTokenizer:
    """A trained SentencePiece model; a `Tokenizer`.

    Ids 0 to 4 are pad, unk, cls, sep and mask in every model that `train` makes; in others they are found by their
    usual names.

    Args:
        model: a `.model` file of SentencePiece, as bytes.

    Raises:
        InputError: it lacks one of the five special tokens, or nothing in it tells where words start.

    """

    def __init__(self, model: bytes):
        self.model = model
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size: int = self._sp.get_piece_size()
        pieces = [self._sp.id_to_piece(i) for i in range(self.size)]
        ids = {
            what: next((pieces.index(name) for name in names if name in pieces), -1) for what, names in SPECIAL.items()
        }
        ids["unk"] = self._sp.unk_id()
        if lacking := [what for what, i in ids.items() if i < 0]:
            raise InputError(
                f"the tokenizer has no {lacking[0]} piece (looked for {' and '.join(SPECIAL[lacking[0]])}): a masked "
                "language model needs one; train the tokenizer with jaxmlm prepare"
            )
        if claimed := [i for i in ids.values() if i != self._sp.unk_id() and not self._sp.is_control(i)]:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=_as_control(model, claimed))
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[what] for what in SPECIAL)
        control = [self._sp.is_control(i) or self._sp.is_unused(i) for i in range(self.size)]
        self.special = np.array(control) | np.isin(np.arange(self.size), list(ids.values()))
        self.boundaries = boundaries(pieces, self.special)
        no_text = self.special | np.array([self._sp.is_byte(i) for i in range(self.size)])
        self.piece_texts = ["" if n else p.replace(SPACE, "") for p, n in zip(pieces, no_text, strict=True)]
        self.pair_separator_ids = [self.sep_id]

    @classmethod
    def load(cls, path: str | Path) -> "SentencePieceTokenizer":
        """Read a `tokenizer.model` file.

        Raises:
            InputError: it is missing, or is not a SentencePiece model.

        """
        model = read_bytes(Path(path), "a SentencePiece model")
        with reading(path, "a SentencePiece model (the .model file that its trainer wrote)"):
            return cls(model)

    def save(self, directory: Path) -> None:
        """Write the tokenizer's file into a directory."""
        (directory / "tokenizer.model").write_bytes(self.model)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        size: int,
        lowercase: bool = True,
        model_type: str = "unigram",
        byte_fallback: bool = False,
    ) -> "SentencePieceTokenizer":
        """Train a tokenizer on texts, which are normalised to NFKC; the same texts give the same bytes.

        Args:
            texts: the texts, line by line.
            size: number of tokens, the five special ones included.
            lowercase: whether text is lower-cased.
            model_type: "unigram" or "bpe".
            byte_fallback: whether 256 of the tokens are bytes, in which a character is spelled that has no token.

        Raises:
            InputError: the size is too large or too small for the texts, or there is no text.

        """
        out = io.BytesIO()
        raised: list[BaseException] = []  # by the text: the library makes a RuntimeError of anything

        def pieces() -> Iterator[str]:
            try:
                for text in texts:
                    for line in clean(text).split("\n"):
                        # It takes minutes over a line of megabytes without a space.
                        yield from filter(None, pieces_of(line, 1 << 16))
            except BaseException as error:
                raised.append(error)
                raise

        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=pieces(),
                model_writer=out,
                vocab_size=size,
                model_type=model_type,
                byte_fallback=byte_fallback,
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
        except RuntimeError as error:
            if raised and not isinstance(raised[0], GeneratorExit):
                raise raised[0] from None
            raise _why_not_trained(str(error), size, LEAST_WITH_BYTES if byte_fallback else LEAST_PIECES) from error
        return cls(out.getvalue())

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return self._sp.encode(clean(text))

    def encode_masked(self, text: str) -> list[int]:
        """The ids of a text in which the mask token stands as the vocabulary writes it, and no other special one.

        The space before a mask is the mask's, as in an exported tokenizer.
        """
        ids = []
        bare = False
        for piece in self._with_mask.encode(clean(text), return_type="proto").pieces:
            if piece.id == self.mask_id and bare:
                ids.pop()
            ids.append(piece.id)
            bare = piece.piece == SPACE
        return ids

    @cached_property
    def _with_mask(self) -> sentencepiece.SentencePieceProcessor:
        """The same model, which reads its mask piece where a text spells it."""
        model = parsed(self.model)
        model.pieces[self.mask_id].type = 4  # user-defined, where it was control: a text cannot spell that
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of several texts, without special tokens."""
        return self._sp.encode([clean(text) for text in texts])

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and, for each, the characters [begin, end) of the original text that it stands for.

        SentencePiece counts UTF-8 bytes, and gives a character that became several pieces (an ellipsis three full
        stops) to the last of them; here the earlier ones get it too. A piece that only marks a word start has none.
        """
        text = clean(text)
        pieces = self._sp.encode(text, return_type="proto").pieces
        # Character index of each byte, and of the end: bytes 0b10xxxxxx continue a character.
        raw = np.frombuffer(text.encode("utf-8"), np.uint8)
        char = np.concatenate([np.cumsum((raw & 0xC0) != 0x80) - 1, [len(text)]]).astype(int)
        ids = []
        offsets = []
        for piece in pieces:
            begin, end = int(char[piece.begin]), int(char[piece.end])
            while begin < end and text[begin].isspace():  # a word's first piece carries the space before it
                begin += 1
            if begin == end < len(text) and piece.piece.strip(SPACE):
                end += 1
            ids.append(piece.id)
            offsets.append((begin, end))
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; special tokens are left out."""
        return self._sp.decode([int(i) for i in ids])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of these ids; a leading low line marks a word start."""
        return [self._sp.id_to_piece(int(i)) for i in ids]


def _why_not_trained(said: str, size: int, least: int) -> InputError:
    """What the library says where it trains no tokenizer, in this project's words."""
    most = re.search(r"value <= (\d+)", said)
    if "Vocabulary size" in said and most:
        if int(most[1]) < least:
            other = ", or leave out data.byte_fallback" if least == LEAST_WITH_BYTES else ""
            return InputError(
                f"this text gives a vocabulary of at most {most[1]} tokens, and data.vocab must be at least {least}: "
                f"give more text{other}"
            )
        return InputError(
            f"a vocabulary of {size} tokens is too large for this text, which gives at most {most[1]}: "
            f"set data.vocab to {most[1]} or less, or give more text"
        )
    if few := re.search(r"smaller than required_chars. \d+ vs (\d+)", said):
        return InputError(
            f"a vocabulary of {size} tokens is too small for the characters of this text: set data.vocab to "
            f"{max(int(few[1]), least)} or more"
        )
    why = said.splitlines()[-1]
    if "!sentences_.empty()" in why or "all_chars_count" in why:
        return InputError("the text is empty, or white space alone: give text to train a tokenizer on")
    return InputError(f"no tokenizer can be trained on this text: {why}")


def parsed(model: bytes) -> Any:
    """The message that a model's file holds."""
    from sentencepiece import sentencepiece_model_pb2 as messages

    return getattr(messages, "ModelProto").FromString(model)  # noqa: B009 (made at run time)


def _as_control(model: bytes, claimed: Sequence[int]) -> bytes:
    """The model with these as control pieces, which no text gives: a user-defined piece claims text that spells it."""
    plain = parsed(model)
    for i in claimed:
        plain.pieces[i].type = plain.pieces[i].CONTROL
    return plain.SerializeToString()
