from __future__ import annotations

import pytest
from pydantic import ValidationError

from suite.cell import CalibrationSpec, Cell, PerplexitySpec


def make(**changes: object) -> Cell:
    fields: dict[str, object] = {
        "model": "org/model",
        "method": "wanda",
        "pattern": "2:4",
        "dtype": "float32",
    }
    return Cell.model_validate({**fields, **changes})


def test_the_digest_of_a_cell_stays_what_it_was() -> None:
    # Written down on purpose: if this changes, no finished record is found any more.
    cell = make(
        settings={"initial": "wanda", "ratio": 0.1, "guard": True, "nested": {"n": None}},
        calibration=CalibrationSpec(source="c4", n_samples=2, seqlen=8, seed=1),
        perplexity=(PerplexitySpec(corpus="wikitext2", seqlen=8, max_tokens=None),),
    )
    assert cell.digest == "45bd44c07681b9685e223a37729de1d819fd74a3f9d2cd6148750227e61944b9"
    assert cell.stem == f"wanda--2of4--{cell.digest[:8]}"


def test_the_order_of_settings_does_not_matter_and_everything_else_does() -> None:
    assert make(settings={"a": 1, "b": 2}).digest == make(settings={"b": 2, "a": 1}).digest
    others = [
        make(model="org/other"),
        make(revision="x"),
        make(method="sparsegpt"),
        make(settings={"a": 1}),
        make(settings={"a": True}),
        make(settings={"a": 1.0}),
        make(settings={"a": "1"}),
        make(pattern="4:8"),
        make(calibration=CalibrationSpec()),
        make(calibration=CalibrationSpec(seed=1)),
        make(dtype="bfloat16"),
        make(perplexity=(PerplexitySpec(corpus="c4"),)),
        make(trust_remote_code=True),
    ]
    digests = {cell.digest for cell in [make(), *others]}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    ("model", "folder"), [("org/model", "org__model"), ("/data/my model/", "data__my_model"), ("a", "a")]
)
def test_records_lie_in_a_folder_of_their_model(model: str, folder: str) -> None:
    assert make(model=model).folder == folder


def test_names_of_records_hold_nothing_a_file_system_minds() -> None:
    stem = make(method="my method/é", pattern="0.5").stem
    assert stem.startswith("my_method_") and "/" not in stem and stem.isascii()
    assert make(method="dense", pattern=None).stem.startswith("dense--dense--")


def test_unknown_keys_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValidationError):
        make(surprise=1)
    with pytest.raises(ValidationError):
        make(settings={"a": float("nan")})
    with pytest.raises(ValidationError):
        make().model = "x"  # type: ignore[misc]


def test_a_label_tells_variants_apart() -> None:
    barber = {
        "initial": "sparsegpt",
        "granularity": "layer",
        "rebuild_ratio": 0.1,
        "keep_reconstruction": True,
    }
    assert make(method="llm-barber", settings=barber).label == (
        "org/model llm-barber (sparsegpt, layer, 0.1, keep reconstruction) 2:4"
    )
    assert make().label == "org/model wanda 2:4"
    assert make(method="dense", pattern=None).label == "org/model dense"


def test_a_protocol_names_its_corpus_and_its_windows() -> None:
    assert PerplexitySpec(corpus="wikitext2", seqlen=2048).protocol == "wikitext2-token-s2048"
