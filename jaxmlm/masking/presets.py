"""The maskings of published systems: what they document, without the bugs of their code.

>>> preset("bert").rate, preset("bert").replace.random
(0.15, 0.1)
"""

from jaxmlm.errors import InputError
from jaxmlm.masking.masking import Masking
from jaxmlm.masking.replacement import Replace
from jaxmlm.masking.units import PhraseUnits, SpanUnits, WordUnits
from jaxmlm.wording import hint

_EIGHTY = Replace(mask=0.8, random=0.1, keep=0.1)

PRESETS: dict[str, Masking] = {
    # Wettig et al. 2022 (arXiv 2202.08005), the recipe: 40 %, always [MASK]. Left out: the released code also masks
    # the <s> and </s> that fairseq puts into a block, and counts them in the rate.
    "wettig2022": Masking(0.40),
    # Devlin et al. 2019 (arXiv 1810.04805), section 3.1. Left out: a cap of 20 predictions, which makes 40 % of 128
    # tokens 15.6 %, and random tokens that may be special or unused ones.
    "bert": Masking(0.15, count="exact", replace=_EIGHTY),
    # "BERT whole word masking", README of google-research/bert, May 2019. Left out: a word that does not fit into what
    # is left of the budget is skipped, so long words are selected less often.
    "bert-wwm": Masking(0.15, units=WordUnits(), count="exact", replace=_EIGHTY),
    # Liu et al. 2019 (arXiv 1907.11692), section 4.1: new masks in every epoch. Left out: masked <s> and </s>, and one
    # million distinct masks in all.
    "roberta": Masking(0.15, replace=_EIGHTY),
    # Joshi et al. 2020 (arXiv 1907.10529), section 3.1: spans of whole words, one fate for a span. Left out: anchors
    # are tokens, so long words are selected more often; the last word may be cut; spans that touch share a fate; the
    # count is rounded up; the first position of a row is selected at .17 to .74 of the rate.
    "spanbert": Masking(
        0.15, units=SpanUnits(), count="exact", replace=Replace(0.8, 0.1, 0.1, per="unit", ids="unigram")
    ),
    # Levine et al. 2021 (arXiv 2010.01825), section 4. No code was released, so there is no bug to leave out.
    "pmi": Masking(0.15, units=PhraseUnits(), replace=Replace(0.8, 0.1, 0.1, per="unit")),
}


def preset(name: str) -> Masking:
    """The masking of a published system, by name: one of `PRESETS`."""
    if name not in PRESETS:
        raise InputError(f"no masking preset {name!r}{hint(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
