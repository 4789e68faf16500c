"""Tasks about the generated world, in the file formats of CoLA, RTE, SQuAD v1.1 and BLiMP.

The words that a task turns on are other ones in `dev` than in `train`, and labels are balanced word by word: a model
that has not read the running text can only guess.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxmlm.samples import world
from jaxmlm.samples.world import Noun, Person, Place, a, listed, sentence

COLA_TRAIN, RTE_TRAIN, SQUAD_TRAIN, DEV, PAIRS_PER_SET = 1200, 1200, 1200, 400, 150
T = TypeVar("T")


class Pool(NamedTuple):
    """The words that one split may use."""

    nouns: list[Noun]
    people: list[Person]
    places: list[Place]
    living: list[str]
    transitive: list[str]
    participles: list[tuple[str, str]]
    prepositional: list[tuple[str, str]]
    jobs: list[str]


def pool(split: str) -> Pool:
    """The words of `train` or `dev`, which share none."""

    def half(words: list[T]) -> list[T]:
        return words[split == "dev" :: 2]

    verbs = [(verb, word) for word, verbs in world.PREPOSITIONS.items() for verb in verbs]
    return Pool(half(world.NOUNS), half(world.PEOPLE), _half_places(split), half(world.LIVING), half(world.TRANSITIVE),
                half(world.PARTICIPLES), half(verbs), half(list(world.JOBS)))  # fmt: skip


def _half_places(split: str) -> list[Place]:
    return [place for i, place in enumerate(world.PLACES) if (i // 4 % 2 == 1) == (split == "dev")]


Pair = tuple[str, str]


def _gender(rng: random.Random, words: Pool) -> Pair:
    person, done = rng.choice(words.people), rng.choice(world.REFLEXIVE)
    other = "himself" if person.woman else "herself"
    when = rng.choice(world.WHEN)
    return f"{person.first} {done} {person.himself} {when}", f"{person.first} {done} {other} {when}"


def _anaphor_number(rng: random.Random, words: Pool) -> Pair:
    one, two = rng.sample(words.people, 2)
    done, when = rng.choice(world.REFLEXIVE), rng.choice(world.WHEN)
    if rng.random() < 0.5:
        return f"{one.first} and {two.first} {done} themselves {when}", f"{one.first} and {two.first} {done} {one.himself} {when}"
    return f"{one.first} {done} {one.himself} {when}", f"{one.first} {done} themselves {when}"


def _agreement(irregular: bool) -> Callable[[random.Random, Pool], Pair]:
    def pair(rng: random.Random, words: Pool) -> Pair:
        noun = rng.choice([n for n in words.nouns if (n.word in world.IRREGULAR) == irregular])
        deed, where, many = rng.choice(noun.kind.deeds), rng.choice(world.WHERE), rng.random() < 0.5
        subject = noun.plural if many else noun.word
        good, bad = (deed, world.third(deed)) if many else (world.third(deed), deed)
        return f"the {subject} {good} {where}", f"the {subject} {bad} {where}"

    return pair


def _determiner(rng: random.Random, words: Pool) -> Pair:
    noun, many = rng.choice(words.nouns), rng.random() < 0.5
    one, more = rng.choice([("this", "these"), ("that", "those")])
    ending = f"{noun.plural if many else noun.word} {'are' if many else 'is'} {rng.choice(noun.kind.looks)}"
    return (f"{more} {ending}", f"{one} {ending}") if many else (f"{one} {ending}", f"{more} {ending}")


def _participle(rng: random.Random, words: Pool) -> Pair:
    past, done = rng.choice(words.participles)
    who, thing = rng.choice(words.people).first, rng.choice(words.nouns).word
    if rng.random() < 0.5:
        return f"{who} has {done} the {thing}", f"{who} has {past} the {thing}"
    return f"{who} {past} the {thing}", f"{who} {done} the {thing}"


def _transitive(rng: random.Random, words: Pool) -> Pair:
    needs, lone = rng.choice(words.transitive), rng.choice(words.living)
    who, when = rng.choice(words.people).first, rng.choice(world.WHEN)
    if rng.random() < 0.5:
        thing = rng.choice([n for n in words.nouns if not n.kind.alive]).word
        return f"{who} {needs} the {thing} {when}", f"{who} {lone} the {thing} {when}"
    return f"{who} {lone} {when}", f"{who} {needs} {when}"


def _animate(rng: random.Random, words: Pool) -> Pair:
    being, thing = (rng.choice([n for n in words.nouns if n.kind.alive == alive]) for alive in (True, False))
    done, where = rng.choice(words.living), rng.choice(world.WHERE)
    return f"the {being.word} {done} {where}", f"the {thing.word} {done} {where}"


def _preposition(rng: random.Random, words: Pool) -> Pair:
    verb, good = rng.choice(words.prepositional)
    bad = "at" if good == "for" else "for"
    who, about, when = rng.choice(words.people).first, rng.choice(words.nouns).word, rng.choice(world.WHEN)
    return f"{who} {verb} {good} the {about} {when}", f"{who} {verb} {bad} the {about} {when}"


# UID: field, term, maker of (good, bad), used for acceptability too
SETS: dict[str, tuple[str, str, Callable[[random.Random, Pool], Pair], bool]] = {
    "anaphor_gender_agreement": ("morphology", "anaphor_agreement", _gender, True),
    "anaphor_number_agreement": ("morphology", "anaphor_agreement", _anaphor_number, False),
    "determiner_noun_agreement": ("morphology", "determiner_noun_agreement", _determiner, False),
    "regular_plural_subject_verb_agreement": ("morphology", "subject_verb_agreement", _agreement(False), False),
    "irregular_plural_subject_verb_agreement": ("morphology", "subject_verb_agreement", _agreement(True), False),
    "irregular_past_participle_verbs": ("morphology", "irregular_forms", _participle, False),
    "transitive": ("syntax", "argument_structure", _transitive, True),
    "verb_preposition": ("syntax", "argument_structure", _preposition, True),
    "animate_subject": ("semantics", "selection", _animate, True),
}


def acceptability(rng: random.Random, split: str, count: int) -> Iterator[tuple[str, int, str]]:
    """Yields (phenomenon, label, sentence): whole minimal pairs, in random order."""
    words, makers = pool(split), [(uid, maker) for uid, (_, _, maker, used) in SETS.items() if used]
    rows = []
    for i in range(count // 2):
        uid, maker = makers[i % len(makers)]
        good, bad = maker(rng, words)
        rows += [(uid, 1, sentence(good)), (uid, 0, sentence(bad))]
    rng.shuffle(rows)
    yield from rows


def entailment(rng: random.Random, split: str, count: int) -> Iterator[tuple[str, str, bool]]:
    """Yields (premise, hypothesis, follows): each premise once with what follows and once with what does not."""
    words, rows = pool(split), []
    women, men = ([person for person in words.people if person.woman == woman] for woman in (True, False))
    north, other = ([place for place in words.places if (place.region == "north") == so] for so in (True, False))
    animals, things = ([noun for noun in words.nouns if noun.kind.alive == alive] for alive in (True, False))
    for i in range(count):
        who, when, noun, so = rng.choice(words.people), rng.choice(world.WHEN), rng.choice(words.nouns), i % 2 == 0
        past = rng.choice(list(world.MEETING.values()))
        if i % 6 < 2:
            place = rng.choice(north if so else other)
            rows.append((f"{who.first} stayed in {place.name} {when}", f"{who.first} went to the north", so))
        elif i % 6 < 4:
            noun = rng.choice(animals if so else things)
            rows.append((f"{who.first} {past} {a(noun.word)} {when}", f"{who.first} {past} an animal", so))
        else:
            who = rng.choice(women if so else men)
            rows.append((f"{who.first} {past} {a(noun.word)} {when}", f"a woman {past} {a(noun.word)}", so))
    rows = [(sentence(premise), sentence(hypothesis), so) for premise, hypothesis, so in rows]
    rng.shuffle(rows)
    yield from rows


def _one(rng: random.Random, of: list[T], so: Callable[[T], bool], k: int) -> list[T]:
    """Three of a list, of which the k-th alone is so."""
    others = rng.sample([x for x in of if not so(x)], 2)
    return [*others[:k], rng.choice([x for x in of if so(x)]), *others[k:]]


def _question(rng: random.Random, words: Pool, i: int) -> tuple[str, str, str]:
    """A sentence with three candidates, a question about it, and the answer."""
    who, where, k = rng.choice(words.people).first, rng.choice(world.WHERE), rng.randrange(3)
    base, past = rng.choice(list(world.MEETING.items()))
    if i % 4 == 0:
        names, verb = [p.full for p in _one(rng, words.people, lambda p: p.woman, k)], rng.choice(words.living)
        return f"{listed(names)} {verb} {where}", f"Which woman {verb}?", names[k]
    if i % 4 == 1:
        names = [place.name for place in _one(rng, words.places, lambda p: p.region == "north", k)]
        return f"{who} stayed in {listed(names)}", "Which place lies in the north?", names[k]
    if i % 4 == 2:
        nouns, what = _one(rng, words.nouns, lambda noun: noun.kind.alive, k), "animal"
    else:
        nouns = [rng.choice([n for n in words.nouns if n.kind is kind]) for kind in rng.sample(world.KINDS, 3)]
        what = nouns[k].kind.name
    return f"{who} {past} {listed([a(n.word) for n in nouns])} {where}", f"Which {what} did {who} {base}?", nouns[k].word


def reading(rng: random.Random, split: str, count: int) -> dict[str, Any]:
    """A SQuAD v1.1 object: paragraphs of three sentences with one question each."""
    words, paragraphs = pool(split), []
    for i in range(count):
        told, question, answer = _question(rng, words, i)
        fillers = [f"{rng.choice(words.people).first} {rng.choice(words.living)} {rng.choice(world.WHERE)}" for _ in "ab"]
        at = rng.randrange(3)
        before = " ".join(sentence(text) for text in fillers[:at])
        context = " ".join(sentence(text) for text in [*fillers[:at], told, *fillers[at:]])
        start = context.index(answer, len(before))
        paragraphs.append({"context": context, "qas": [
            {"id": f"{split}-{i}", "question": question, "answers": [{"text": answer, "answer_start": start}]}
        ]})  # fmt: skip
    return {"version": "1.1", "data": [{"title": "the_world", "paragraphs": paragraphs}]}


def minimal_pairs(rng: random.Random, uid: str, count: int) -> Iterator[dict[str, Any]]:
    """Yields the lines of one BLiMP set, over all words of the world."""
    field, term, maker, _ = SETS[uid]
    words = Pool(*(one + two for one, two in zip(pool("train"), pool("dev"), strict=True)))
    for i in range(count):
        good, bad = maker(rng, words)
        yield {"sentence_good": sentence(good), "sentence_bad": sentence(bad), "field": field,
               "linguistics_term": term, "UID": uid, "simple_LM_method": True, "one_prefix_method": False,
               "two_prefix_method": False, "lexically_identical": False, "pairID": str(i)}  # fmt: skip


def write(folder: Path, seed: int) -> None:
    """Writes `CoLA/`, `RTE/`, `squad/` and `blimp/` below the folder, each in its official file format."""
    for name in ("CoLA", "RTE", "squad", "blimp"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed}/{name}")

    def save(path: str, lines: Iterator[str]) -> None:
        (folder / path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    for split in ("train", "dev"):
        count = DEV if split == "dev" else COLA_TRAIN
        rows = acceptability(rng(f"CoLA/{split}"), split, count)
        save(f"CoLA/{split}.tsv", (f"{uid}\t{label}\t{'' if label else '*'}\t{text}" for uid, label, text in rows))
        count = DEV if split == "dev" else RTE_TRAIN
        pairs = enumerate(entailment(rng(f"RTE/{split}"), split, count))
        lines = (f"{i}\t{one}\t{two}\t{'' if so else 'not_'}entailment" for i, (one, two, so) in pairs)
        save(f"RTE/{split}.tsv", iter(["index\tsentence1\tsentence2\tlabel", *lines]))
        count = DEV if split == "dev" else SQUAD_TRAIN
        save(f"squad/{split}-v1.1.json", iter([json.dumps(reading(rng(f"squad/{split}"), split, count))]))
    for uid in SETS:
        save(f"blimp/{uid}.jsonl", map(json.dumps, minimal_pairs(rng(f"blimp/{uid}"), uid, PAIRS_PER_SET)))
