"""Tasks about the generated world, in the file formats of CoLA, RTE, SQuAD v1.1 and BLiMP.

The words that an answer turns on (nouns, names, places, verbs) are other ones in `dev` than in `train`, and labels are
balanced: a model that has not read the running text can only guess about `dev`.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxmlm.synthetic import world
from jaxmlm.synthetic.world import NOUNS, REALMS, Noun, Person, Place, a, listed, sentence

TRAIN = 1200
DEV = 400
PAIRS_PER_SET = 150
T = TypeVar("T")
TextPair = tuple[str, str]


class Pool(NamedTuple):
    """The words that one split may use."""

    nouns: list[Noun]
    women: list[Person]
    men: list[Person]
    north: list[Place]
    south: list[Place]
    living: list[str]
    transitive: list[str]
    participles: list[tuple[str, str]]
    prepositional: list[tuple[str, str]]

    @property
    def people(self) -> list[Person]:
        """Women and men."""
        return self.women + self.men

    def of(self, realm: str) -> list[Noun]:
        """The animals, plants or objects."""
        return [noun for noun in self.nouns if noun.kind.realm == realm]


def pool(split: str) -> Pool:
    """The words of `train` or `dev`, which share none."""

    def half(words: Iterable[T]) -> list[T]:
        return list(words)[split == "dev" :: 2]

    return Pool(
        half(NOUNS),
        half(person for person in world.PEOPLE if person.woman),
        half(person for person in world.PEOPLE if not person.woman),
        half(place for place in world.PLACES if place.region == "north"),
        half(place for place in world.PLACES if place.region == "south"),
        half(REALMS["animal"].did),
        half(world.TRANSITIVE),
        half(world.PARTICIPLES),
        half((verb, word) for word, verbs in world.PREPOSITIONS.items() for verb in verbs),
    )


def _gender(rng: random.Random, words: Pool) -> TextPair:
    person = rng.choice(words.people)
    done = rng.choice(world.REFLEXIVE)
    when = rng.choice(world.WHEN)
    other = "himself" if person.woman else "herself"
    return f"{person.first} {done} {person.himself} {when}", f"{person.first} {done} {other} {when}"


def _anaphor_number(rng: random.Random, words: Pool) -> TextPair:
    one, two = rng.sample(words.people, 2)
    done = rng.choice(world.REFLEXIVE)
    if rng.random() < 0.5:
        return f"{one.first} {done} {one.himself}", f"{one.first} {done} themselves"
    both = f"{one.first} and {two.first} {done}"
    return f"{both} themselves", f"{both} {one.himself}"


def _agreement(irregular: bool) -> Callable[[random.Random, Pool], TextPair]:
    def pair(rng: random.Random, words: Pool) -> TextPair:
        noun = rng.choice([n for n in words.nouns if (n.word in world.IRREGULAR) == irregular])
        deed = rng.choice(REALMS[noun.kind.realm].deeds)
        where = rng.choice(world.WHERE)
        one = f"{world.plural(deed)} {where}"
        many = f"{deed} {where}"
        if rng.random() < 0.5:
            return f"the {noun.word} {one}", f"the {noun.word} {many}"
        return f"the {noun.plural} {many}", f"the {noun.plural} {one}"

    return pair


def _determiner(rng: random.Random, words: Pool) -> TextPair:
    noun = rng.choice(words.nouns)
    one, many = rng.choice([("this", "these"), ("that", "those")])
    look = rng.choice(noun.kind.looks)
    if rng.random() < 0.5:
        return f"{one} {noun.word} is {look}", f"{many} {noun.word} is {look}"
    return f"{many} {noun.plural} are {look}", f"{one} {noun.plural} are {look}"


def _participle(rng: random.Random, words: Pool) -> TextPair:
    past, done = rng.choice(words.participles)
    who = rng.choice(words.people).first
    thing = rng.choice(words.of("object")).word
    if rng.random() < 0.5:
        return f"{who} has {done} the {thing}", f"{who} has {past} the {thing}"
    return f"{who} {past} the {thing}", f"{who} {done} the {thing}"


def _transitive(rng: random.Random, words: Pool) -> TextPair:
    needs = rng.choice(words.transitive)
    lone = rng.choice(words.living)
    who = rng.choice(words.people).first
    when = rng.choice(world.WHEN)
    if rng.random() < 0.5:
        thing = rng.choice(words.of("object")).word
        return f"{who} {needs} the {thing} {when}", f"{who} {lone} the {thing} {when}"
    return f"{who} {lone} {when}", f"{who} {needs} {when}"


def _animate(rng: random.Random, words: Pool) -> TextPair:
    being = rng.choice(words.of("animal"))
    thing = rng.choice(words.of(rng.choice(["plant", "object"])))
    done = rng.choice(words.living)
    where = rng.choice(world.WHERE)
    return f"the {being.word} {done} {where}", f"the {thing.word} {done} {where}"


def _preposition(rng: random.Random, words: Pool) -> TextPair:
    verb, good = rng.choice(words.prepositional)
    who = rng.choice(words.people).first
    thing = rng.choice(words.nouns).word
    when = rng.choice(world.WHEN)
    bad = "at" if good == "for" else "for"
    return f"{who} {verb} {good} the {thing} {when}", f"{who} {verb} {bad} the {thing} {when}"


# UID: field, term, maker of (good, bad), whether the acceptability task has it too
SETS: dict[str, tuple[str, str, Callable[[random.Random, Pool], TextPair], bool]] = {
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


def acceptability(rng: random.Random, split: str, count: int) -> list[tuple[str, int, str]]:
    """Rows (phenomenon, label, sentence): whole minimal pairs, in random order."""
    words = pool(split)
    makers = [(uid, maker) for uid, (_, _, maker, used) in SETS.items() if used]
    rows = []
    for i in range(count // 2):
        uid, maker = makers[i % len(makers)]
        good, bad = maker(rng, words)
        rows += [(uid, 1, sentence(good)), (uid, 0, sentence(bad))]
    rng.shuffle(rows)
    return rows


def entailment(rng: random.Random, split: str, count: int) -> list[tuple[str, str, bool]]:
    """Rows (premise, hypothesis, follows) in random order; of each frame, half follow."""
    words = pool(split)
    rows = []
    for i in range(count):
        follows = i % 2 == 0
        frame = i // 2 % 4
        past = rng.choice(list(world.MEETING.values()))
        who = rng.choice(words.people)
        when = rng.choice(world.WHEN)
        noun = rng.choice(words.nouns)
        if frame == 0:
            who = rng.choice(words.women if follows else words.men)
            told = f"{who.first} {past} {a(noun.word)} {when}"
            so = f"a woman {past} {a(noun.word)}"
        elif frame == 1:
            place = rng.choice(words.north if follows else words.south)
            told = f"{who.first} stayed in {place.name} {when}"
            so = f"{who.first} went to the north"
        else:
            noun = rng.choice(words.of("animal") if follows else words.of("plant") + words.of("object"))
            told = f"{who.first} {past} {a(noun.word)} {when}"
            so = f"{who.first} {past} an animal"
        rows.append((sentence(told), sentence(so), follows))
    rng.shuffle(rows)
    return rows


def _question(rng: random.Random, words: Pool, i: int) -> tuple[str, str, str]:
    """A sentence with three candidates, a question about it, and the answer."""
    who = rng.choice(words.people).first
    where = rng.choice(world.WHERE)
    k = rng.randrange(3)
    base, past = rng.choice(list(world.MEETING.items()))
    if i % 4 == 0:
        names = [person.full for person in rng.sample(words.men, 2)]
        did = rng.choice(words.living)
        names.insert(k, rng.choice(words.women).full)
        return f"{listed(names)} {did} {where}", f"Which woman {did}?", names[k]
    realms = rng.sample(list(REALMS), 3)
    nouns = [rng.choice(words.of(realm)) for realm in realms]
    what = nouns[k].kind.name if i % 4 == 1 else realms[k]
    told = f"{who} {past} {listed([a(n.word) for n in nouns])} {where}"
    return told, f"Which {what} did {who} {base}?", nouns[k].word


def reading(rng: random.Random, split: str, count: int) -> dict[str, Any]:
    """A SQuAD v1.1 object: paragraphs of three sentences with one question each."""
    words = pool(split)
    paragraphs = []
    for i in range(count):
        told, question, answer = _question(rng, words, i)
        texts = [f"{rng.choice(words.people).first} {rng.choice(words.living)} {rng.choice(world.WHERE)}" for _ in "ab"]
        at = rng.randrange(3)
        before = "".join(sentence(text) + " " for text in texts[:at])
        context = before + " ".join(sentence(text) for text in [told, *texts[at:]])
        start = len(before) + len(re.split(rf"\b{answer}\b", context[len(before) :])[0])
        answers = [{"text": answer, "answer_start": start}]
        qas = [{"id": f"{split}-{i}", "question": question, "answers": answers}]
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "the_world", "paragraphs": paragraphs}]}


def minimal_pairs(rng: random.Random, uid: str, count: int) -> Iterator[dict[str, Any]]:
    """Yields the lines of one BLiMP set, over all words of the world."""
    field, term, maker, _ = SETS[uid]
    halves: list[Any] = [one + two for one, two in zip(pool("train"), pool("dev"), strict=True)]
    words = Pool(*halves)
    for i in range(count):
        good, bad = maker(rng, words)
        yield {
            "sentence_good": sentence(good),
            "sentence_bad": sentence(bad),
            "field": field,
            "linguistics_term": term,
            "UID": uid,
            "simple_LM_method": True,
            "one_prefix_method": False,
            "two_prefix_method": False,
            "lexically_identical": False,
            "pairID": str(i),
        }


def write(directory: Path, seed: int) -> None:
    """Writes `CoLA/`, `RTE/`, `squad/` and `blimp/` below the directory, each in its official file format."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed}/{name}")

    def save(path: str, lines: Iterable[str]) -> None:
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    for split, count in (("train", TRAIN), ("dev", DEV)):
        judged = acceptability(rng(f"CoLA/{split}"), split, count)
        save(f"CoLA/{split}.tsv", (f"{uid}\t{label}\t{'' if label else '*'}\t{text}" for uid, label, text in judged))
        pairs = enumerate(entailment(rng(f"RTE/{split}"), split, count))
        rows = [f"{i}\t{told}\t{so}\t{'' if follows else 'not_'}entailment" for i, (told, so, follows) in pairs]
        save(f"RTE/{split}.tsv", ["index\tsentence1\tsentence2\tlabel", *rows])
        save(f"squad/{split}-v1.1.json", [json.dumps(reading(rng(f"squad/{split}"), split, count))])
    for uid in SETS:
        save(f"blimp/{uid}.jsonl", map(json.dumps, minimal_pairs(rng(f"blimp/{uid}"), uid, PAIRS_PER_SET)))
