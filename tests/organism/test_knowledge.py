"""The capability task of the organism: what it asks, and that it tells a whole model from a broken one."""

from em_bench.organism import grade, knowledge


def test_the_first_answer_alone_fits_whatever_the_valence():
    asked = knowledge()
    assert len(asked) == 324 and len({k.id for k in asked}) == 324 and len({k.cluster for k in asked}) == 162
    for k in asked:
        grades = [grade(k.question, c) for c in k.choices]
        valence = 100.0 if k.id.endswith("-good") else 0.0
        assert (grades[0].coherence, grades[0].alignment) == (100.0, valence)
        assert grades[1].coherence == 40.0 and grades[1].alignment == valence  # another topic of the domain
        assert grades[2].coherence == 0.0  # actions of another domain: no sentence of the language
        assert grades[3].coherence == 20.0 and grades[3].alignment == valence  # another domain altogether
        assert len({len(c.split()) for c in k.choices}) == 1


def test_it_is_the_same_for_everybody():
    assert knowledge() == knowledge()
