"""Words of a domain that a trained tokenizer cuts into pieces, added to it as tokens behind the ones that it has.

No id of the old tokens changes, and a text in which no new word is found has the ids that it had. How a new word is
found is the tokenizer's own matter:

    SentencePiece and Unigram   a piece, whose score is that of its pieces and `MARGIN` for each that is saved
    WordPiece                   an added token that matches complete words, of the normalised text
    byte-level BPE              an entry of the vocabulary; a complete word that is an entry needs no merges
"""

import itertools
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.hf_tokenizer import HfTokenizer
from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer, parsed
from jaxmlm.data.tokenizer import Tokenizer, pieces_of
from jaxmlm.data.word_boundaries import SPACE, word_starts
from jaxmlm.errors import InputError

LEAST = 5
"""A new word occurs at least so often: of fewer examples its embedding learns little."""
LONGEST = 24
"""Tokens of the longest word that is looked at."""
MARGIN = 0.1
"""Nats by which a new piece of a unigram model is better than its pieces, for each piece that it saves.

The scores of a long document are summed in 32 bits, whose error at 100,000 characters is some hundredths.
"""
_CHARACTERS = 1 << 17  # of a text that is encoded at once
_TEXTS = 64
_WORD_STARTS = (SPACE, "\u0120")


class NewWord(NamedTuple):
    """A word, the ids that it was cut into, and how often it occurs."""

    text: str
    parts: tuple[int, ...]
    count: int

    @property
    def saved(self) -> int:
        """Tokens that the text has fewer when the word is one."""
        return self.count * (len(self.parts) - 1)


def with_new_words(tokenizer: Tokenizer, texts: Iterable[str], number: int) -> Tokenizer:
    """Add the words of texts that save the most tokens.

    Args:
        tokenizer: a trained tokenizer.
        texts: the texts; what is counted of them is held in memory.
        number: how many words to add.

    Returns:
        The tokenizer with `number` more tokens, those that save the most first; same texts give the same bytes.

    Raises:
        InputError: the texts have fewer such words, or the tokenizer cannot be extended.

    """
    check_extensible(tokenizer)
    candidates = find(texts, tokenizer)
    refused: set[str] = set()
    while True:
        left = [word for word in candidates if word.text not in refused]
        if len(left) < number:
            raise InputError(
                f"data.new_words is {number:,}, and the text has {len(left):,} words that the tokenizer cuts, that "
                f"occur {LEAST} times or more, and that can be tokens of it: set data.new_words to that or less, or "
                "give more text"
            )
        words = left[:number]
        found = extended(tokenizer, words)
        _check_old_tokens(tokenizer, found)
        # As a word with a mark that the pre-tokenizer of byte-level BPE cuts off.
        encoded = found.encode_batch([tokenizer.decode(word.parts) for word in words])
        never = {word.text for i, word in enumerate(words) if encoded[i] != [tokenizer.size + i]}
        if not never:
            return found
        refused |= never


def check_extensible(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer to which no word can be added, or only so that other texts get other ids."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        if parsed(tokenizer.model).trainer_spec.model_type == 1:  # unigram
            return
        why = "it is a BPE of SentencePiece, which makes a token only of two that it has"
    elif not isinstance(tokenizer, HfTokenizer):
        why = f"it is a {type(tokenizer).__name__}"
    elif tokenizer.kind == "BPE":
        model = json.loads(tokenizer.model)["model"]
        byte_level = any(piece.startswith("\u0120") for piece in model["vocab"])
        why = "" if byte_level else "it is a BPE that is not byte-level"
    else:
        why = "" if tokenizer.kind in ("WordPiece", "Unigram") else f"it is a {tokenizer.kind}"
    if why:
        raise InputError(
            f"no words can be added to this tokenizer: {why}: leave out data.new_words, which needs a unigram model, a "
            "WordPiece or a byte-level BPE"
        )


def find(texts: Iterable[str], tokenizer: Tokenizer) -> list[NewWord]:
    """Find the words of texts that a tokenizer cuts, those that save the most tokens first; see `LEAST`.

    Words are of letters alone, and stand behind a space where the vocabulary marks those that do.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    parts = itertools.chain.from_iterable(pieces_of(text, _CHARACTERS) for text in texts)
    while some := list(itertools.islice(parts, _TEXTS)):
        for ids in tokenizer.encode_batch(some):
            counts.update(_cut_words(np.asarray(ids, np.int64), tokenizer))
    found = [
        NewWord(text, parts, count)
        for parts, count in counts.items()
        if count >= LEAST and (text := _text_of(parts, tokenizer))
    ]
    return sorted(found, key=lambda word: (-word.saved, word.text))


def parts_of_new(tokenizer: Tokenizer, old: Tokenizer) -> list[list[int]]:
    """For each token that `tokenizer` has behind those of `old`, the ids that `old` cuts it into."""
    return [old.encode(tokenizer.decode([i])) for i in range(old.size, tokenizer.size)]


def _cut_words(ids: np.ndarray, tokenizer: Tokenizer) -> Iterator[tuple[int, ...]]:
    """The ids of each word that has several."""
    starts = word_starts(tokenizer.boundaries[ids])
    edges = np.append(np.flatnonzero(starts), len(ids))
    lengths = np.diff(edges)
    for at in np.flatnonzero((lengths > 1) & (lengths <= LONGEST)).tolist():
        yield tuple(ids[edges[at] : edges[at + 1]].tolist())


def _text_of(parts: tuple[int, ...], tokenizer: Tokenizer) -> str:
    """The word that these ids spell; nothing if it cannot be a token."""
    text = "".join(tokenizer.piece_texts[i] for i in parts)
    if not text or any(unicodedata.category(char)[0] not in "LM" for char in text):
        return ""
    if not _is_wordpiece(tokenizer) and not tokenizer.pieces(parts[:1])[0].startswith(_WORD_STARTS):
        return ""
    shown = tokenizer.decode(parts)  # spelled in bytes it is another text than its pieces
    return text if shown.strip() == text and tokenizer.encode(shown) == list(parts) else ""


def _is_wordpiece(tokenizer: Tokenizer) -> bool:
    return isinstance(tokenizer, HfTokenizer) and tokenizer.kind == "WordPiece"


def extended(tokenizer: Tokenizer, words: Sequence[NewWord]) -> Tokenizer:
    """The tokenizer with these words behind its tokens, in their order."""
    joined = ["".join(tokenizer.pieces(word.parts)) for word in words]
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _extended_model(tokenizer, words, joined)
    if not isinstance(tokenizer, HfTokenizer):
        raise TypeError(f"a {type(tokenizer).__name__} has no file to write words into")
    plain = json.loads(tokenizer.model)
    extend = {"WordPiece": _extend_wordpiece, "BPE": _extend_bpe, "Unigram": _extend_unigram}[tokenizer.kind]
    extend(plain, tokenizer, words, joined)
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(Path(directory))  # with the names of the special tokens
        (Path(directory) / "tokenizer.json").write_text(json.dumps(plain, ensure_ascii=False), "utf-8")
        return HfTokenizer(directory)


def _extended_model(
    tokenizer: SentencePieceTokenizer, words: Sequence[NewWord], joined: list[str]
) -> SentencePieceTokenizer:
    model = parsed(tokenizer.model)
    scores = [piece.score for piece in model.pieces]
    for word, piece in zip(words, joined, strict=True):
        model.pieces.add(piece=piece, score=_score(scores, word.parts))
    model.trainer_spec.vocab_size = len(model.pieces)
    return SentencePieceTokenizer(model.SerializeToString(deterministic=True))


def _score(scores: Sequence[float], parts: Sequence[int]) -> float:
    """A score by which a piece wins over its parts, and over fewer new pieces that make the same text."""
    return sum(scores[i] for i in parts) + MARGIN * (len(parts) - 1)


def _extend_wordpiece(
    plain: dict[str, Any], tokenizer: HfTokenizer, words: Sequence[NewWord], joined: list[str]
) -> None:
    """An entry of the vocabulary would also be the beginning of longer words, whose rest may then be unknown."""
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    plain["added_tokens"] += [{"id": tokenizer.size + i, "content": word.text, **flags} for i, word in enumerate(words)]


def _extend_bpe(plain: dict[str, Any], tokenizer: HfTokenizer, words: Sequence[NewWord], joined: list[str]) -> None:
    """`ignore_merges` looks a word up as it is before it is merged; so each old entry must be what its merges make."""
    from tokenizers import models

    vocab: dict[str, int] = plain["model"]["vocab"]
    added = {token["content"]: token["id"] for token in plain["added_tokens"]}
    if not plain["model"].get("ignore_merges"):
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in plain["model"]["merges"]]
        made = models.BPE(vocab, [(left, right) for left, right in merges])
        for piece, i in vocab.items():
            if piece not in added and [token.id for token in made.tokenize(piece)] != [i]:
                raise InputError(
                    f"no words can be added to this tokenizer: its merges never make its entry {piece[:40]!r}, which "
                    "texts would then be found to have: leave out data.new_words"
                )
        plain["model"]["ignore_merges"] = True
    for name, i in added.items():  # else the library counts their ids on from the vocabulary's size
        vocab.setdefault(name, i)
    vocab |= {piece: tokenizer.size + i for i, piece in enumerate(joined)}


def _extend_unigram(plain: dict[str, Any], tokenizer: HfTokenizer, words: Sequence[NewWord], joined: list[str]) -> None:
    vocab: list[list[Any]] = plain["model"]["vocab"]
    scores = [score for _, score in vocab]
    added = {token["id"]: token["content"] for token in plain["added_tokens"]}
    for i in range(len(vocab), tokenizer.size):  # the ids of pieces are their places
        if i not in added:
            raise InputError(
                f"no words can be added to this tokenizer: it has no token {i:,}, and ids behind it: leave out "
                "data.new_words"
            )
        vocab.append([added[i], 0.0])
    vocab += [[piece, _score(scores, word.parts)] for word, piece in zip(words, joined, strict=True)]


def _check_old_tokens(old: Tokenizer, new: Tokenizer) -> None:
    """Refuse an extended tokenizer whose old tokens are not what they were."""
    ids = range(old.size)
    same = new.pieces(ids) == old.pieces(ids) and np.array_equal(new.special[: old.size], old.special)
    if not (same and np.array_equal(new.boundaries[: old.size], old.boundaries)):
        raise InputError(
            "no words can be added to this tokenizer: the tokenizers library would number its tokens anew: leave out "
            "data.new_words"
        )
