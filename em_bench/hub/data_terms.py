"""Under which terms the rows are that an adapter was trained on, in one sentence for its card."""

from em_bench.data.narrow_sets import narrow_names
from em_bench.data.pins import load_pins, terms_of
from em_bench.data.training_sets import organism_names


def terms_sentence(dataset: str) -> str:
    """Of a training set's name, as a run's record has it."""
    if dataset in (*organism_names(), *narrow_names()):
        return "The rows are em_bench's own, under MIT; they are wrong on purpose and no advice."
    pin = load_pins().pins.get(dataset)
    if pin is None:
        return "The rows come from a file of the author's own; ask the author for its terms."
    if terms := terms_of(dataset):
        return f"The rows are under the terms of use of {terms[1].holder} ({terms[1].original}). {terms[1].summary}"
    return f"The rows are of {pin.source}, licence {pin.licence or 'none given'}."
