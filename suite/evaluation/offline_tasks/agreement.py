"""Choose the verb that agrees with its subject across other nouns (after Linzen et al., arXiv:1611.01368)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from suite.evaluation.offline_tasks.items import ChoiceItem, as_dataset, in_random_order, with_right_at

if TYPE_CHECKING:
    from datasets import DatasetDict

VERBS = (("is", "are"), ("was", "were"), ("has", "have"), ("seems", "seem"))
"""Singular and plural. Each is one token of nearly any vocabulary, so both choices take one forward."""

FRAMES = (
    # A noun in a prepositional phrase.
    "The {key|keys} to the old {cabinet|cabinets}",
    "The {door|doors} of the blue {house|houses}",
    "The {letter|letters} from the {lawyer|lawyers}",
    "The {label|labels} on the {bottle|bottles}",
    "The {picture|pictures} of the {mountain|mountains}",
    "The {report|reports} about the {accident|accidents}",
    "The {bridge|bridges} over the {river|rivers}",
    "The {price|prices} of the new {car|cars}",
    # Two such nouns.
    "The {photo|photos} of the {bridge|bridges} near the {airport|airports}",
    "The {leader|leaders} of the {union|unions} in the {city|cities}",
    "The {lamp|lamps} on the {table|tables} beside the {bed|beds}",
    "The {map|maps} of the {trail|trails} through the {forest|forests}",
    "The {copy|copies} of the {letter|letters} from the {bank|banks}",
    "The {color|colors} of the {flower|flowers} in the {vase|vases}",
    "The {editor|editors} of the {paper|papers} from the {town|towns}",
    "The {crack|cracks} in the {wall|walls} of the {tunnel|tunnels}",
    # The object of a relative clause.
    "The {teacher|teachers} who praised the {student|students}",
    "The {dog|dogs} that chased the {cat|cats}",
    "The {lawyer|lawyers} who called the {witness|witnesses}",
    "The {farmer|farmers} who sold the {horse|horses}",
    "The {ship|ships} that brought the {soldier|soldiers}",
    "The {doctor|doctors} who treated the {patient|patients}",
    "The {author|authors} who wrote the {novel|novels}",
    "The {museum|museums} that bought the {painting|paintings}",
    # The object of a verb before, of the same subject.
    "The {pilot|pilots} spoke to the {passenger|passengers} but",
    "The {teacher|teachers} praised the {student|students} but still",
    "The {doctor|doctors} treated the {patient|patients} and still",
    "The {company|companies} built the {tower|towers} but",
    "The {lawyer|lawyers} called the {witness|witnesses} but",
    "The {farmer|farmers} sold the {horse|horses} and",
    "The {tourist|tourists} lost the {passport|passports} but",
    "The {singer|singers} thanked the {guest|guests} and",
    "The {museum|museums} bought the {painting|paintings} and",
    "The {nurse|nurses} called the {parent|parents} but",
    "The {dog|dogs} chased the {cat|cats} and",
    "The {author|authors} finished the {novel|novels} but",
    "The {senator|senators} met the {reporter|reporters} but",
    "The {storm|storms} damaged the {roof|roofs} but",
    "The {cook|cooks} washed the {plate|plates} and",
    "The {sailor|sailors} left the {island|islands} but",
    "The {driver|drivers} parked the {truck|trucks} and",
    "The {thief|thieves} opened the {safe|safes} but",
    "The {child|children} found the {toy|toys} and",
    "The {bank|banks} closed the {account|accounts} but",
    # The subject of a relative clause that nothing announces.
    "The {book|books} the {student|students} borrowed",
    "The {cake|cakes} the {baker|bakers} made",
    "The {song|songs} the {artist|artists} recorded",
    "The {plan|plans} the {senator|senators} rejected",
    "The {house|houses} the {engineer|engineers} designed",
    "The {actor|actors} the {critic|critics} admired",
    "The {machine|machines} the {worker|workers} repaired",
    "The {island|islands} the {sailor|sailors} discovered",
    "The {prisoner|prisoners} the {guard|guards} watched",
    "The {film|films} the {director|directors} finished",
    "The {tool|tools} the {carpenter|carpenters} used",
    "The {idea|ideas} the {scientist|scientists} proposed",
    "The {coin|coins} the {boy|boys} found",
    "The {player|players} the {coach|coaches} trained",
    "The {box|boxes} the {driver|drivers} delivered",
    "The {dress|dresses} the {girl|girls} chose",
    "The {letter|letters} the {lawyer|lawyers} wrote",
    "The {patient|patients} the {doctor|doctors} treated",
    "The {painting|paintings} the {museum|museums} bought",
    "The {horse|horses} the {farmer|farmers} sold",
    "The {bridge|bridges} the {soldier|soldiers} destroyed",
    "The {village|villages} the {river|rivers} flooded",
    "The {witness|witnesses} the {judge|judges} questioned",
    "The {road|roads} the {company|companies} built",
    "The {suspect|suspects} the {officer|officers} arrested",
    "The {poem|poems} the {teacher|teachers} praised",
    "The {car|cars} the {mechanic|mechanics} fixed",
    "The {window|windows} the {child|children} broke",
)
"""Subjects up to the verb, which agrees with their first noun. Clauses are in the past tense, because its
verb forms do not reveal the number."""

_NOUN = re.compile(r"\{(\w+)\|(\w+)\}")


def agreement_items() -> list[ChoiceItem]:
    """Returns four items per frame: subject and other nouns, each in the singular and in the plural.

    In half of the items the other nouns thus differ in number from the subject. Items with a singular and a
    plural answer alternate, and for both the answer is equally often the first and the second choice.
    """
    by_number: tuple[list[ChoiceItem], list[ChoiceItem]] = ([], [])
    for place, frame in enumerate(FRAMES):
        for number in (0, 1):
            for others in (0, 1):
                verbs = VERBS[(place + 2 * number + others) % len(VERBS)]
                choices = (f" {verbs[number]}", f" {verbs[1 - number]}")
                by_number[number].append(ChoiceItem(_subject(frame, number, others), choices, 0))
    singular, plural = (in_random_order(items, lambda item: item.context) for items in by_number)
    return [
        ChoiceItem(item.context, with_right_at(place % 2, item.choices[0], item.choices[1:]), place % 2)
        for place, pair in enumerate(zip(singular, plural, strict=True))
        for item in pair
    ]


def dataset(**_: object) -> DatasetDict:
    """The task's data set; lm-eval hands over the task's metadata, none of which is needed."""
    return as_dataset(agreement_items())


def _subject(frame: str, number: int, others: int) -> str:
    """Fills in a frame: its first noun in `number` (0 singular, 1 plural), all others in `others`."""
    first = _NOUN.sub(lambda noun: noun[1 + number], frame, count=1)
    return _NOUN.sub(lambda noun: noun[1 + others], first)


__all__ = ["FRAMES", "VERBS", "agreement_items", "dataset"]
