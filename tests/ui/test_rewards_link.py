import pytest

from stepwise_dpo.ui.address import NO_REWARDS, Address, RewardsLink, read_address
from stepwise_dpo.ui.rewards_link import Fields, fields_of, link_of


def test_what_the_tab_shows_by_itself_is_not_in_the_address():
    assert link_of(*Fields()) == NO_REWARDS._asdict()
    assert fields_of(NO_REWARDS, True) == Fields()


def test_a_view_is_found_again():
    fields = Fields("log_odds", "difference", "until_error", "error", True, "tiny")
    link = link_of(*fields)
    assert set(link.values()) == {"log_odds", "difference", "until_error", "error", "yes", "tiny"}
    assert read_address({"tab": "rewards", **link}) == Address("rewards", rewards=RewardsLink(**link))
    for public in (False, True):
        assert fields_of(RewardsLink(**link), public) == fields


@pytest.mark.parametrize("junk", ["", "x", "centered ", "<b>", "a" * 300])
def test_what_cant_be_meant_is_left_out(junk):
    link = RewardsLink(shown=junk, when=junk, adds=junk, order=junk, negative=junk)
    assert fields_of(link, False) == Fields()
    assert fields_of(RewardsLink(judge="./my/judge"), False).model == "./my/judge"
    assert fields_of(RewardsLink(judge="./my/judge"), True).model == Fields().model


def test_whatever_a_browser_sends_an_address_comes_out():
    assert link_of(None, 3, ["sum"], {"a": 1}, "yes", "m" * 301) == NO_REWARDS._asdict()
    assert link_of("log_odds")["shown"] == "log_odds"
