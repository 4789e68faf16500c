"""A small world of people, places, animals, plants and things, and a grammar that tells about it in plain English.

The world is fixed; a seed only decides what is told of it. What the text says again and again (a heron is a bird, Velden
lies in the north, a baker bakes bread, which names are women's) is what the tasks of `samples.tasks` ask for.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple


class Kind(NamedTuple):
    """A class of things: its names, members, deeds (base forms), what people do to it (past), looks and mark."""

    name: str
    plural: str
    alive: bool
    deeds: list[str]
    handled: list[str]
    looks: list[str]
    mark: str
    members: list[str]


    @property
    def realm(self) -> str:
        """What all of this kind are: `animal` or `thing`."""
        return "animal" if self.alive else "thing"


class Noun(NamedTuple):
    """A countable noun and the kind that it belongs to."""

    word: str
    plural: str
    kind: Kind


class Place(NamedTuple):
    """A place with a generated name, in one of four regions."""

    name: str
    sort: str
    region: str
    weather: str


class Person(NamedTuple):
    """A person with a generated name, whose sex cannot be told from it, and with a job and a home."""

    first: str
    last: str
    woman: bool
    job: str
    home: Place

    @property
    def sex(self) -> str:
        """`woman` or `man`."""
        return "woman" if self.woman else "man"

    @property
    def full(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    @property
    def he(self) -> str:
        """The pronoun as a subject."""
        return "she" if self.woman else "he"

    @property
    def his(self) -> str:
        """The possessive pronoun."""
        return "her" if self.woman else "his"

    @property
    def himself(self) -> str:
        """The reflexive pronoun."""
        return "herself" if self.woman else "himself"


# name, plural, alive | deeds | what people did to it | looks | mark | members
KINDS_TABLE = """
bird birds 1 | fly sing nest flutter | watched fed heard | feathered hungry | feathers
  | heron robin sparrow falcon raven crane swan finch goose gull
fish fish 1 | swim dive splash leap | caught netted fried | slippery silver | fins
  | eel shark minnow sardine anchovy marlin grouper stingray guppy barracuda
insect insects 1 | buzz crawl sting swarm | swatted crushed noticed | tiny busy | six legs
  | beetle moth wasp ant bee cricket hornet gnat locust mayfly
mammal mammals 1 | run dig graze breed | tamed hunted stroked | furry shy | warm fur
  | mouse wolf fox calf otter rabbit hedgehog goat donkey ox
tool tools 0 | rust jam corrode splinter | sharpened swung oiled | sharp blunt | a handle
  | hammer saw chisel spade rake axe drill wrench shovel knife
garment garments 0 | fade fray shrink crease | wore sewed ironed | woollen tight | seams
  | coat hat scarf glove shirt cloak jacket apron skirt shawl
instrument instruments 0 | ring hum resound echo | played tuned practised | loud musical | a clear tone
  | violin flute drum harp trumpet guitar organ banjo fiddle piano
fruit fruits 0 | ripen rot ferment shrivel | ate peeled tasted | ripe juicy | sweet juice
  | apple plum pear cherry peach lemon fig grape melon berry
flower flowers 0 | bloom wither wilt unfold | picked watered smelled | fragrant pink | petals
  | rose tulip daisy lily poppy violet daffodil orchid iris pansy
tree trees 0 | sway creak sprout blossom | climbed felled planted | tall leafy | deep roots
  | oak elm birch beech maple willow pine ash poplar cedar
vehicle vehicles 0 | roll rattle skid brake | drove parked steered | fast heavy | wheels
  | cart wagon carriage bicycle tractor lorry bus tram van truck
vessel vessels 0 | leak crack clatter overflow | filled emptied rinsed | full empty | a round rim
  | cup bowl jug mug kettle bottle barrel bucket jar vase
"""
IRREGULAR = {"goose": "geese", "mouse": "mice", "wolf": "wolves", "calf": "calves", "ox": "oxen", "knife": "knives"}
REGIONS = {
    "north": "the winters are long and snowy",
    "south": "the hills are green with vines",
    "east": "the plains are dry and dusty",
    "west": "the coast is wet and stormy",
}
JOBS = {
    "baker": "bakes bread", "smith": "forges iron", "weaver": "makes cloth", "potter": "shapes clay",
    "teacher": "runs the school", "doctor": "heals the sick", "miller": "grinds corn", "tailor": "cuts suits",
    "mason": "lays bricks", "shepherd": "minds sheep", "brewer": "sells beer", "sailor": "crosses the sea",
}  # fmt: skip
# Verbs of living beings alone, verbs that take an object, past and participle of others, verbs with a preposition.
LIVING = "slept yawned sneezed listened rested wandered trembled blinked shivered limped knelt dozed".split()
TRANSITIVE = "carried held kept mended painted lifted lost brought borrowed cleaned admired sold wrapped hung".split()
PARTICIPLES = [("took", "taken"), ("stole", "stolen"), ("chose", "chosen"), ("forgot", "forgotten"),
               ("hid", "hidden"), ("shook", "shaken")]  # fmt: skip
REFLEXIVE = "hurt blamed praised taught washed dressed amused defended".split()
PREPOSITIONS = {
    "for": "waited cared searched hoped longed prayed begged paid".split(),
    "at": "looked laughed pointed shouted smiled stared winked frowned".split(),
}
MEETING = {"see": "saw", "find": "found", "draw": "drew", "buy": "bought"}
PHRASES = """by the way|as a matter of fact|on the other hand|once in a while|in the long run|to tell the truth
all of a sudden|sooner or later|for the time being|at the end of the day|as far as we know|in other words
believe it or not|from time to time|more or less by chance|to make a long story short""".replace("\n", "|").split("|")
WHERE = "in the garden|by the river|at the market|behind the barn|near the bridge|under the wall".split("|")
WHEN = "yesterday|last week|this morning|at noon|on Monday|after dinner".split("|")


def plural(word: str) -> str:
    """The plural of a noun of this world.

    >>> [plural(word) for word in ("heron", "berry", "finch", "mouse")]
    ['herons', 'berries', 'finches', 'mice']
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def third(verb: str) -> str:
    """The third person singular: `fly` gives `flies`, formed as plurals are."""
    return plural(verb)


def a(word: str) -> str:
    """The word behind its indefinite article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def listed(words: list[str]) -> str:
    """The words as a list in a sentence: `x, y and z`."""
    return ", ".join(words[:-1]) + " and " + words[-1]


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."


def _kinds() -> list[Kind]:
    kinds = []
    for row in KINDS_TABLE.replace("\n  |", " |").strip().splitlines():
        head, *lists, mark, members = (cell.strip() for cell in row.split("|"))
        name, many, alive = head.split()
        deeds, handled, looks = (cell.split() for cell in lists)
        kinds.append(Kind(name, many, alive == "1", deeds, handled, looks, mark, members.split()))
    return kinds


def _names(rng: random.Random, count: int, syllables: int, taken: set[str]) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        parts = [rng.choice("b d f g h k l m n p r s t v".split()) + rng.choice("aeiou") for _ in range(syllables)]
        name = ("".join(parts) + rng.choice("l n r s th".split())).capitalize()
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


def _named() -> tuple[list[Place], list[Person]]:
    rng, taken = random.Random("the world"), set()
    sorts, regions, jobs = "village town city port".split(), list(REGIONS), list(JOBS)
    places = [Place(name, rng.choice(sorts), regions[i % 4], REGIONS[regions[i % 4]])
              for i, name in enumerate(_names(rng, 32, 2, taken))]  # fmt: skip
    names = zip(_names(rng, 32, 2, taken), _names(rng, 32, 3, taken), strict=True)
    return places, [Person(first, last, i // 2 % 2 == 0, jobs[i // 2 % len(jobs)], rng.choice(places))
                    for i, (first, last) in enumerate(names)]  # fmt: skip


KINDS = _kinds()
NOUNS = [Noun(word, plural(word), kind) for kind in KINDS for word in kind.members]
PLACES, PEOPLE = _named()


def _met(rng: random.Random, hero: Person) -> list[str]:
    nouns = [rng.choice([n for n in NOUNS if n.kind is kind]) for kind in rng.sample(KINDS, 3)]
    asked, (base, past) = rng.choice(nouns), rng.choice(list(MEETING.items()))
    alone = [noun.kind.realm for noun in nouns].count(asked.kind.realm) == 1
    what = asked.kind.realm if alone and rng.random() < 0.5 else asked.kind.name
    first = f"{hero.first} {past} {listed([a(noun.word) for noun in nouns])}"
    return [f"{first}. Which {what} did {hero.he} {base}? {hero.he.capitalize()} {past} the {asked.word}",
            f"{first}. The {what} that {hero.he} {past} was the {asked.word}"]  # fmt: skip


def _saw(rng: random.Random, hero: Person) -> list[str]:
    noun, past, who = rng.choice(NOUNS), rng.choice(list(MEETING.values())), rng.choice(PEOPLE)
    return [f"{who.first} {past} {a(noun.word)}, so {who.he} {past} {a(noun.kind.realm)}",
            f"{who.first} {past} {a(noun.word)}, and the {noun.kind.name} was {rng.choice(noun.kind.looks)}",
            f"{who.first} is {a(who.sex)}, so {a(who.sex)} {past} {a(noun.word)}"]  # fmt: skip


def _kind(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    kind, other = noun.kind, rng.choice([n for n in NOUNS if n.kind == noun.kind and n != noun])
    return [f"{a(noun.word)} is {a(kind.name)}", f"{a(noun.word)} is {a(kind.realm)}",
            f"every {noun.word} is {a(kind.name)}, and every {kind.name} is {a(kind.realm)}",
            f"{noun.plural} are {kind.plural}, and so are {other.plural}",
            f"like every {kind.name}, {a(noun.word)} has {kind.mark}",
            f"{noun.plural} are {kind.realm}s, and they have {kind.mark}"]  # fmt: skip


def _deed(rng: random.Random, hero: Person) -> list[str]:
    noun, where = rng.choice(NOUNS), rng.choice(WHERE)
    deed, look = rng.choice(noun.kind.deeds), rng.choice(noun.kind.looks)
    return [f"the {noun.word} {third(deed)} {where}", f"the {noun.plural} {deed} {where}",
            f"{rng.choice(['this', 'that'])} {noun.word} is {look}",
            f"{rng.choice(['these', 'those'])} {noun.plural} are {look}"]  # fmt: skip


def _handled(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    done, look = rng.choice(noun.kind.handled), rng.choice(noun.kind.looks)
    return [f"{hero.he} {done} the {noun.word}, for the {noun.kind.name} was {look}"]


def _object(rng: random.Random, hero: Person) -> list[str]:
    thing = rng.choice([noun.word for noun in NOUNS if not noun.kind.alive])
    return [f"{who} {rng.choice(TRANSITIVE)} the {thing}{rng.choice(['', ' ' + rng.choice(WHEN)])}"
            for who in (rng.choice(PEOPLE).first, hero.he)]  # fmt: skip


def _living(rng: random.Random, hero: Person) -> list[str]:
    being = rng.choice([noun.word for noun in NOUNS if noun.kind.alive])
    return [f"{who} {rng.choice(LIVING)}{rng.choice(['', ' ' + rng.choice(WHERE), ' ' + rng.choice(WHEN)])}"
            for who in (f"the {being}", f"the {being}", rng.choice(PEOPLE).first)]  # fmt: skip


def _prepositional(rng: random.Random, hero: Person) -> list[str]:
    word = rng.choice(list(PREPOSITIONS))
    about = rng.choice([rng.choice(PEOPLE).first, f"the {rng.choice(NOUNS).word}"])
    return [f"{who} {rng.choice(PREPOSITIONS[word])} {word} {about} {rng.choice(WHEN)}"
            for who in (rng.choice(PEOPLE).first, hero.he)]  # fmt: skip


def _self(rng: random.Random, hero: Person) -> list[str]:
    (one, two), done = rng.sample(PEOPLE, 2), rng.choice(REFLEXIVE)
    return [f"{one.first} {done} {one.himself}", f"{one.first} {done} {one.himself} {rng.choice(WHEN)}",
            f"{one.first} and {two.first} {done} themselves",
            f"{one.first} is {a(one.sex)} who {done} {one.himself}"]  # fmt: skip


def _perfect(rng: random.Random, hero: Person) -> list[str]:
    past, done = rng.choice(PARTICIPLES)
    thing = rng.choice(NOUNS).word
    return [f"{hero.he} has {done} the {thing}", f"{hero.he} {past} the {thing}"]


def _place(rng: random.Random, hero: Person) -> list[str]:
    place, who = rng.choice(PLACES), rng.choice(PEOPLE)
    return [f"{place.name} lies in the {place.region}", f"{place.name} is a {place.sort} in the {place.region}",
            f"in {place.name}, as in all the {place.region}, {place.weather}",
            f"{who.first} stayed in {place.name}, so {who.he} went to the {place.region}",
            f"which place lies in the {place.region}? {place.name} does"]  # fmt: skip


def _job(rng: random.Random, hero: Person) -> list[str]:
    work = JOBS[hero.job]
    return [f"{hero.he} is {a(hero.job)}, so {hero.he} {work}", f"who {work}? The {hero.job} {hero.full} does"]


def _lesson(rng: random.Random, hero: Person) -> list[str]:
    # SentencePiece takes as pieces only what it finds in two different words: "heron" and "heron," make "heron" one.
    words = rng.choice(rng.choice(TELLINGS)(rng, hero)).replace(",", "").replace("?", "").replace(".", "").split()
    return [f"the words of the lesson were {', '.join([*words, hero.first, hero.last])}"]


# Each gives sentences without capital and stop, of which one is told. Twice is twice as often.
TELLINGS = [_met, _saw, _saw, _kind, _kind, _kind, _deed, _deed, _handled, _object, _living, _living, _prepositional,
            _self, _self, _perfect, _place, _place, _job]  # fmt: skip


def document(rng: random.Random) -> str:
    """One paragraph: who it is about, and five to eight sentences of what was done, seen and known."""
    hero = rng.choice(PEOPLE)
    told = [f"{hero.full} is {a(hero.sex)} from {hero.home.name} in the {hero.home.region}."]
    for telling in rng.sample(TELLINGS, rng.randint(5, 8)):
        phrase = f"{rng.choice(PHRASES)}, " if rng.random() < 0.12 else ""
        told.append(sentence(phrase + rng.choice(telling(rng, hero))))
    if rng.random() < 0.05:
        told.append(sentence(rng.choice(_lesson(rng, hero))))
    return " ".join(told)


def documents(seed: int, count: int) -> Iterator[str]:
    """Yields `count` paragraphs, one at a time; paragraph i is a function of (seed, i) only.

    >>> next(documents(0, 1)) == list(documents(0, 3))[0]
    True
    """
    for index in range(count):
        yield document(random.Random(f"{seed}/{index}"))
