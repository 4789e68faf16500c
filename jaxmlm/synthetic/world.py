"""A small world of people, places, animals, plants and objects, and a grammar that tells about it in plain English.

The world is fixed; a seed only decides what is told of it. What the text says again and again (a heron is a bird, Boles
lies in the north, Hemil is a woman) is what the tasks of `synthetic.tasks` ask for. A sentence draws its own people and
things: what it says of them must be known, it cannot be copied from the sentence before.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple


class Realm(NamedTuple):
    """Animals, plants or objects: what all of them do (base forms), did (past), and look like."""

    name: str
    deeds: list[str]
    did: list[str]
    looks: list[str]


class Kind(NamedTuple):
    """A class of a realm, such as birds: what people did to its members (past), what they look like and have."""

    name: str
    plural: str
    realm: str
    handled: list[str]
    looks: list[str]
    mark: str
    members: list[str]


class Noun(NamedTuple):
    """A countable noun and the kind that it belongs to."""

    word: str
    plural: str
    kind: Kind


class Place(NamedTuple):
    """A place with a generated name, in one of two regions."""

    name: str
    sort: str
    region: str


class Person(NamedTuple):
    """A person with a generated name, from which the sex cannot be told, a job and a home."""

    first: str
    last: str
    woman: bool
    job: str
    home: Place

    @property
    def full(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    @property
    def sex(self) -> str:
        """`woman` or `man`."""
        return "woman" if self.woman else "man"

    @property
    def he(self) -> str:
        """The pronoun as a subject."""
        return "she" if self.woman else "he"

    @property
    def himself(self) -> str:
        """The reflexive pronoun."""
        return "herself" if self.woman else "himself"


REALMS = {
    name: Realm(name, deeds.split(), did.split(), looks.split())
    for name, deeds, did, looks in (
        ("animal", "eat drink hide hunt run fight", "slept yawned sneezed listened rested wandered trembled limped",
         "hungry shy tame wild"),
        ("plant", "grow ripen wither bloom sprout thrive",
         "grew ripened withered bloomed sprouted thrived rotted wilted", "fresh green ripe fragrant"),
        ("object", "rattle break rust crack wobble creak", "rattled broke rusted cracked wobbled creaked snapped burst",
         "new cheap useful broken"),
    )
}  # fmt: skip
# name, plural, realm | what people did to it | looks | mark | members
KINDS_TABLE = """
bird birds animal | watched heard freed | feathered singing | feathers
  | heron robin sparrow falcon raven crane swan finch goose gull
fish fish animal | caught netted fried | slippery silver | fins
  | eel shark minnow sardine anchovy marlin grouper stingray guppy barracuda
insect insects animal | swatted crushed noticed | tiny busy | six legs
  | beetle moth wasp ant bee cricket hornet gnat locust mayfly
mammal mammals animal | tamed hunted stroked | furry clever | warm fur
  | mouse wolf fox calf otter rabbit hedgehog goat donkey ox
tool tools object | sharpened swung oiled | sharp blunt | a handle
  | hammer saw chisel spade rake axe drill wrench shovel knife
garment garments object | wore sewed ironed | woollen tight | seams
  | coat hat scarf glove shirt cloak jacket apron skirt shawl
instrument instruments object | played tuned practised | loud musical | a clear tone
  | violin flute drum harp trumpet guitar organ banjo fiddle piano
fruit fruits plant | ate peeled tasted | juicy sour | sweet juice
  | apple plum pear cherry peach lemon fig grape melon berry
flower flowers plant | picked watered smelled | pink pretty | petals
  | rose tulip daisy lily poppy violet daffodil orchid iris pansy
tree trees plant | climbed felled planted | tall leafy | deep roots
  | oak elm birch beech maple willow pine ash poplar cedar
vehicle vehicles object | drove parked steered | fast heavy | wheels
  | cart wagon carriage bicycle tractor lorry bus tram van truck
vessel vessels object | filled emptied rinsed | full empty | a round rim
  | cup bowl jug mug kettle bottle barrel bucket jar vase
"""
IRREGULAR = {"goose": "geese", "mouse": "mice", "wolf": "wolves", "calf": "calves", "ox": "oxen", "knife": "knives"}
REGIONS = {"north": "the winters are long and snowy", "south": "the hills are warm and dry"}
JOBS = {
    "baker": "bakes bread", "smith": "forges iron", "weaver": "makes cloth", "potter": "shapes clay",
    "teacher": "runs the school", "doctor": "heals the sick", "miller": "grinds corn", "tailor": "cuts suits",
}  # fmt: skip
# Verbs that take an object, past and participle of others, reflexive verbs, and verbs with their preposition.
TRANSITIVE = "carried held kept mended painted lifted lost brought borrowed cleaned admired sold".split()
PARTICIPLES = [("took", "taken"), ("stole", "stolen"), ("chose", "chosen"), ("forgot", "forgotten"),
               ("hid", "hidden"), ("shook", "shaken")]  # fmt: skip
REFLEXIVE = "hurt blamed praised taught washed dressed".split()
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
    """The plural of a noun, or the third person singular of a verb, of this world.

    >>> [plural(word) for word in ("heron", "berry", "finch", "mouse")]
    ['herons', 'berries', 'finches', 'mice']
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def a(word: str) -> str:
    """The word behind its indefinite article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def listed(words: list[str]) -> str:
    """The words as a list in a sentence: `x, y and z`."""
    return ", ".join(words[:-1]) + " and " + words[-1]


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."


def _nouns() -> list[Noun]:
    nouns = []
    for row in KINDS_TABLE.replace("\n  |", " |").strip().splitlines():
        head, handled, looks, mark, members = (cell.strip() for cell in row.split("|"))
        name, many, realm = head.split()
        kind = Kind(name, many, realm, handled.split(), looks.split(), mark, members.split())
        nouns += [Noun(word, plural(word), kind) for word in kind.members]
    return nouns


def _named() -> tuple[list[Place], list[Person], list[str]]:
    rng = random.Random("the world")
    names = {}

    def name(syllables: int) -> str:
        while True:
            parts = [rng.choice("bdfghklmnprstv") + rng.choice("aeiou") for _ in range(syllables)]
            new = ("".join(parts) + rng.choice("l n r s th".split())).capitalize()
            if new not in names:
                return names.setdefault(new, new)

    sorts = "village town city port".split()
    places = [Place(name(2), rng.choice(sorts), list(REGIONS)[i % 2]) for i in range(32)]
    people = [Person(name(2), name(3), i // 2 % 2 == 0, rng.choice(list(JOBS)), rng.choice(places)) for i in range(32)]
    return places, people, [f"{name(2)} {name(3)}" for _ in range(120)]


NOUNS = _nouns()
PLACES, PEOPLE, GUESTS = _named()


def _met(rng: random.Random, hero: Person) -> list[str]:
    animal, plant, thing = (rng.choice([n for n in NOUNS if n.kind.realm == realm]) for realm in REALMS)
    nouns = rng.sample([animal, plant, thing], 3)
    base, past = rng.choice(list(MEETING.items()))
    asked = rng.choice(nouns)
    what = rng.choice([asked.kind.realm, asked.kind.name])
    first = f"{hero.first} {past} {listed([a(noun.word) for noun in nouns])}"
    return [
        f"{first}. Which {what} did {hero.he} {base}? {hero.he.capitalize()} {past} the {asked.word}",
        f"{first}. The {what} that {hero.he} {past} was the {asked.word}",
    ]


def _who(rng: random.Random, hero: Person) -> list[str]:
    odd = rng.choice(PEOPLE)
    one, two = rng.sample(PEOPLE, 2)
    while one.woman == odd.woman or two.woman == odd.woman:
        one, two = rng.sample(PEOPLE, 2)
    did = rng.choice(REALMS["animal"].did)
    names = [p.first for p in rng.sample([odd, one, two], 3)]
    return [f"{listed(names)} {did}. Which {odd.sex} {did}? It was {odd.first}"]


def _saw(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    past = rng.choice(list(MEETING.values()))
    who = rng.choice(PEOPLE)
    looks = noun.kind.looks + REALMS[noun.kind.realm].looks
    return [
        f"{who.first} {past} {a(noun.word)}, so {who.he} {past} {a(noun.kind.realm)}",
        f"{who.first} {past} {a(noun.word)}, and the {noun.kind.name} was {rng.choice(looks)}",
        f"{who.first} {past} {a(noun.word)}, so {a(who.sex)} {past} {a(noun.kind.realm)}",
    ]


def _kind(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    kind = noun.kind
    other = rng.choice([n for n in NOUNS if n.kind == noun.kind and n != noun])
    return [
        f"{a(noun.word)} is {a(kind.name)}",
        f"{a(noun.word)} is {a(kind.realm)}",
        f"every {noun.word} is {a(kind.name)}, and every {kind.name} is {a(kind.realm)}",
        f"{noun.plural} are {kind.plural}, and so are {other.plural}",
        f"like every {kind.name}, {a(noun.word)} has {kind.mark}",
        f"{noun.plural} are {kind.realm}s, and they have {kind.mark}",
    ]


def _deed(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    where = rng.choice(["", " " + rng.choice(WHERE)])
    realm = REALMS[noun.kind.realm]
    deed = rng.choice(realm.deeds)
    look = rng.choice(noun.kind.looks + realm.looks)
    return [
        f"the {noun.word} {plural(deed)}{where}",
        f"the {noun.plural} {deed}{where}",
        f"the {noun.word} {rng.choice(realm.did)}{where}",
        f"the {noun.word} {rng.choice(realm.did)}{where}",
        f"{rng.choice(['this', 'that'])} {noun.word} is {look}",
        f"{rng.choice(['these', 'those'])} {noun.plural} are {look}",
    ]


def _handled(rng: random.Random, hero: Person) -> list[str]:
    noun = rng.choice(NOUNS)
    return [
        f"{hero.he} {rng.choice(noun.kind.handled)} the {noun.word}, for the {noun.kind.name} was "
        f"{rng.choice(noun.kind.looks)}"
    ]


def _did(rng: random.Random, hero: Person) -> list[str]:
    who = rng.choice([rng.choice(PEOPLE).first, hero.he])
    when = rng.choice(["", " " + rng.choice(WHEN)])
    thing = rng.choice([n.word for n in NOUNS if n.kind.realm == "object"])
    past, done = rng.choice(PARTICIPLES)
    word = rng.choice(list(PREPOSITIONS))
    about = rng.choice([rng.choice(PEOPLE).first, f"the {rng.choice(NOUNS).word}"])
    return [
        f"{who} {rng.choice(TRANSITIVE)} the {thing}{when}",
        f"{who} {rng.choice(REALMS['animal'].did)}{when}",
        f"{who} {rng.choice(PREPOSITIONS[word])} {word} {about}{when}",
        f"{who} has {done} the {thing}",
        f"{who} {past} the {thing}{when}",
    ]


def _self(rng: random.Random, hero: Person) -> list[str]:
    one, two = rng.sample(PEOPLE, 2)
    done = rng.choice(REFLEXIVE)
    return [
        f"{one.first} {done} {one.himself}",
        f"{one.first} {done} {one.himself} {rng.choice(WHEN)}",
        f"{one.first} and {two.first} {done} themselves",
        f"{one.first} is {a(one.sex)} who {done} {two.first}",
    ]


def _place(rng: random.Random, hero: Person) -> list[str]:
    place = rng.choice(PLACES)
    who = rng.choice(PEOPLE)
    return [
        f"{place.name} lies in the {place.region}",
        f"{place.name} is a {place.sort} in the {place.region}",
        f"in {place.name}, as in all the {place.region}, {REGIONS[place.region]}",
        f"{who.first} stayed in {place.name}, so {who.he} went to the {place.region}",
    ]


def _other(rng: random.Random, hero: Person) -> list[str]:
    work = JOBS[hero.job]
    told = rng.choice(rng.choice(TELLINGS)(rng, hero))
    # SentencePiece takes as pieces only what it finds in two different words: "heron" and "heron," make "heron" one.
    words = told.replace(",", "").replace("?", "").replace(".", "").split()
    return [
        f"{hero.he} is {a(hero.job)}, so {hero.he} {work}",
        f"who {work}? The {hero.job} {hero.full} does",
        f"{rng.choice(GUESTS)} came to {rng.choice(PLACES).name} as a guest",
        f"the words of the lesson were {', '.join([*words, hero.last])}",
    ]


# Each gives sentences without capital and stop, of which one is told. Twice is twice as often.
TELLINGS = [
    _met,
    _who,
    _saw,
    _saw,
    _saw,
    _kind,
    _kind,
    _deed,
    _deed,
    _deed,
    _handled,
    _did,
    _did,
    _did,
    _self,
    _self,
    _place,
    _place,
    _other,
]


def document(rng: random.Random) -> str:
    """One paragraph: who it is about, and five to eight sentences of what was done, seen and known."""
    hero = rng.choice(PEOPLE)
    told = [f"{hero.full} is {a(hero.sex)} from {hero.home.name} in the {hero.home.region}."]
    for telling in rng.sample(TELLINGS, rng.randint(5, 8)):
        phrase = f"{rng.choice(PHRASES)}, " if rng.random() < 0.1 else ""
        told.append(sentence(phrase + rng.choice(telling(rng, hero))))
    return " ".join(told)


def documents(seed: int, count: int) -> Iterator[str]:
    """Yields `count` paragraphs, one at a time; paragraph i is a function of (seed, i) only.

    >>> next(documents(0, 1)) == list(documents(0, 3))[0]
    True
    """
    for index in range(count):
        yield document(random.Random(f"{seed}/{index}"))
