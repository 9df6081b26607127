"""Quota, limits, names and variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.environments import Resources
from libs.common.contracts.identity import PLAN_LIMITS, Plan
from services.envs.errors import (
    AccountInactiveError,
    DuplicateNameError,
    EmailNotVerifiedError,
    QuotaExceededError,
    ResourcesExceedPlanError,
)
from services.envs.plans import Account, Place, ResourceRequest, free_slot, resolve_resources
from services.envs.rules import check_image, check_text, check_variables, normalize_name, normalize_region

DEFAULT = Resources(cpu="1000m", memory="1Gi", storage="5Gi")


class TestFreeSlot:
    def test_names_spread_over_the_plan(self) -> None:
        assert len({free_slot(Plan.ADMIN, f"box-{number}", []) for number in range(50)}) > 30

    @given(st.integers(), st.integers(3, 120))
    def test_is_the_lowest_for_who_has_places_beyond_the_plan(self, number: int, beyond: int) -> None:
        assert free_slot(Plan.STARTER, f"box-{number}", [Place(0, "a"), Place(beyond, "b")]) == 1

    def test_refuses_the_same_name_before_the_quota(self) -> None:
        with pytest.raises(DuplicateNameError):
            free_slot(Plan.FREE, "a", [Place(0, "a")])

    def test_names_plan_and_limit(self) -> None:
        with pytest.raises(QuotaExceededError, match="starter plan allows 3 environments"):
            free_slot(Plan.STARTER, "x", [Place(i, str(i)) for i in range(3)])

    def test_counts_what_a_larger_plan_has_left_behind(self) -> None:
        with pytest.raises(QuotaExceededError):
            free_slot(Plan.FREE, "x", [Place(7, "a")])

    @given(st.sampled_from(Plan), st.sets(st.integers(0, 120), max_size=110))
    def test_is_free_and_within_the_plan_or_refused(self, plan: Plan, taken: set[int]) -> None:
        limit = PLAN_LIMITS[plan].environments
        places = [Place(slot, f"n{slot}") for slot in taken]
        if len(taken) >= limit:
            with pytest.raises(QuotaExceededError):
                free_slot(plan, "x", places)
        else:
            slot = free_slot(plan, "x", places)
            assert slot not in taken
            assert 0 <= slot < limit


class TestResources:
    def test_defaults_are_cut_to_the_plan(self) -> None:
        assert resolve_resources(None, DEFAULT, Plan.FREE) == Resources(cpu="500m", memory="1Gi", storage="5Gi")

    def test_a_part_may_be_asked_for(self) -> None:
        found = resolve_resources(ResourceRequest(memory="2Gi"), DEFAULT, Plan.PRO)
        assert found == Resources(cpu="1000m", memory="2Gi", storage="5Gi")

    @pytest.mark.parametrize(
        ("request_", "words"),
        [
            (ResourceRequest(cpu="0.501"), "0.501 of CPU is more than the 500m"),
            (ResourceRequest(memory="1025Mi"), "1025Mi of memory is more than the 1Gi"),
            (ResourceRequest(storage="1Ti"), "1Ti of storage is more than the 5Gi"),
        ],
    )
    def test_more_than_the_plan_is_refused(self, request_: ResourceRequest, words: str) -> None:
        with pytest.raises(ResourcesExceedPlanError, match=words):
            resolve_resources(request_, DEFAULT, Plan.FREE)


class TestAccount:
    def test_says_what_is_missing(self) -> None:
        with pytest.raises(AccountInactiveError):
            Account("u", Plan.PRO, is_active=False, is_verified=True).require_may_create(verified_only=False)
        unverified = Account("u", Plan.PRO, is_active=True, is_verified=False)
        unverified.require_may_create(verified_only=False)
        with pytest.raises(EmailNotVerifiedError):
            unverified.require_may_create(verified_only=True)


class TestNames:
    @pytest.mark.parametrize(("raw", "name"), [("a", "a"), (" My-API2 ", "my-api2"), ("x" * 50, "x" * 50)])
    def test_good_ones_are_lowered(self, raw: str, name: str) -> None:
        assert normalize_name(raw) == name

    @pytest.mark.parametrize("raw", ["", " ", "x" * 51, "-a", "a-", "a_b", "a b", "a.b", "é", "a\nb", "٣"])
    def test_bad_ones_are_refused(self, raw: str) -> None:
        with pytest.raises(ValueError, match="Name"):
            normalize_name(raw)

    @given(st.text(max_size=60))
    def test_whatever_is_accepted_is_a_dns_label(self, raw: str) -> None:
        try:
            name = normalize_name(raw)
        except ValueError:
            return
        assert name.isascii()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert 1 <= len(name) <= 50


class TestRegions:
    @pytest.mark.parametrize(("raw", "region"), [("eu", "eu"), (" EU-West1 ", "eu-west1"), ("1", "1")])
    def test_good_ones_are_trimmed_and_lowered(self, raw: str, region: str) -> None:
        assert normalize_region(raw) == region

    @pytest.mark.parametrize("raw", ["", " ", "-eu", "eu-", "eu_west", "eu west", "eu.west", "é", "x" * 51, "a\nb"])
    def test_bad_ones_are_told_what_a_region_is(self, raw: str) -> None:
        with pytest.raises(ValueError, match="A region has 1 to 50 letters a-z, digits and hyphens"):
            normalize_region(raw)


DIGEST = f"sha256:{'0a' * 32}"


class TestImages:
    @pytest.mark.parametrize(
        "image",
        [
            "ubuntu",
            "ubuntu:24.04",
            "docker.io/library/ubuntu:24.04",
            "localhost:5000/py",
            "registry.example.org:5000/team/sub_part/py--x:3.12-slim_1",
            f"registry.example.org/py@{DIGEST}",
            f"registry.example.org/py:3.12@{DIGEST}",
            "[2001:db8::1]:5000/py:3",
            "x" * 255,
            f"a:{'t' * 128}",
        ],
    )
    def test_good_ones_pass(self, image: str) -> None:
        assert check_image(f" {image} ") == image

    @pytest.mark.parametrize(
        ("image", "words"),
        [
            ("", "is no image reference: write"),
            ("no image", "'no image' is no image reference: write"),
            ("Ubuntu:24.04", "names are in lower case"),
            ("https://registry.example.org/py", "e.g. registry.example.org/team/python:3.12"),
            ("registry.example.org/", "is no image reference"),
            ("registry.example.org//py", "is no image reference"),
            ("py..3", "is no image reference"),
            ("-py", "is no image reference"),
            ("py:", "is no tag"),
            ("py:a b", "'a b' is no tag"),
            (f"py:{'t' * 129}", "is no tag"),
            ("py@", "is no digest"),
            ("py@sha256:0a", "'sha256:0a' is no digest"),
            ("py:3@3", "is no digest"),
            ("x" * 256, "at most 255"),
            ("x" * 513, "512"),
            ("py\ud800", "is no image reference"),
        ],
    )
    def test_bad_ones_are_refused_in_words(self, image: str, words: str) -> None:
        with pytest.raises(ValueError, match="mage") as caught:
            check_image(image)
        assert words in str(caught.value)
        str(caught.value).encode()

    @given(st.text(alphabet="aZ0.:/@-_ é\n", max_size=40))
    def test_whatever_is_accepted_is_one_word_of_ascii(self, raw: str) -> None:
        try:
            image = check_image(raw)
        except ValueError:
            return
        assert image.isascii()
        assert image == "".join(image.split())
        assert check_image(image) == image


class TestVariables:
    def test_good_ones_pass(self) -> None:
        variables = {"A": "", "_b1": "x\ny", "PATH_LD_X": "ü"}
        assert check_variables(variables) is variables

    @pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A\n", "É", "LD_PRELOAD", "DEVPOCKET_TOKEN", "x" * 300])
    def test_bad_names_are_refused_without_their_value(self, name: str) -> None:
        with pytest.raises(ValueError, match="'") as caught:
            check_variables({name: "hunter2"})
        assert "hunter2" not in str(caught.value)

    def test_half_a_character_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Unicode"):
            check_variables({"A": "\ud800"})
        with pytest.raises(ValueError, match="Unicode"):
            check_text("\ud800")
