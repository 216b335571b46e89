"""What a round's verdict on a cohort means for its sites."""

from server.improvement import _by_cohort, _by_site
from shared_models.factory import factory_image
from shared_models.network import head_weights, quantise_head

COHORTS = {"cohort 1": frozenset({"ash", "oak"}), "cohort 2": frozenset({"elm", "fir"})}


def test_a_cohort_that_is_held_back_is_all_of_its_sites() -> None:
    held_back = _by_site({"cohort 1": "hurt", "lone": "hurt more"}, COHORTS)
    assert held_back == {"ash": "hurt", "oak": "hurt", "lone": "hurt more"}


def test_a_cohort_is_compared_with_what_all_of_its_sites_run() -> None:
    factory = factory_image()
    other = quantise_head(factory, 2 * head_weights(factory))
    stayed = _by_cohort({"ash": factory, "oak": factory, "elm": factory, "fir": other}, COHORTS)
    assert stayed["cohort 1"] is factory
    assert "cohort 2" not in stayed
    assert set(stayed) == {"cohort 1", "ash", "oak", "elm", "fir"}
