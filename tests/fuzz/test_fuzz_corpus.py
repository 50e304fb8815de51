"""The corpus of the fuzzers, replayed: seeds, and every input that a reader once stumbled over."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"
#: Bytes that all of the corpus may take.
MOST_BYTES = 400_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds(name: str) -> None:
    """Cut, flipped and doubled bytes: what a fuzzer begins with, always the same here."""
    dice = random.Random(name)
    for path in sorted((CORPUS / name).iterdir()):
        data = path.read_bytes()
        for _ in range(25):
            spoilt = bytearray(data)
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(spoilt) + 1)
                match dice.randrange(4):
                    case 0:
                        del spoilt[place:]
                    case 1:
                        spoilt[place : place + 1] = bytes([dice.randrange(256)])
                    case 2:
                        del spoilt[place : place + dice.randint(1, 80)]
                    case _:
                        spoilt[place:place] = spoilt[place : place + dice.randint(1, 80)]
            TARGETS[name](bytes(spoilt))


def test_corpus_stays_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES
