"""Which key signs and which are published, at any time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.auth.keyring import PUBLISHED_AHEAD, SigningKey, current_key, published_keys

START = datetime(2026, 11, 1, tzinfo=UTC)
TOKEN_LIFE = timedelta(minutes=30)
_PRIVATE = Ed25519PrivateKey.generate()


def a_row(*ages: int) -> list[SigningKey]:
    """Keys made after so many minutes each; the first signs at once, the others after they were published."""
    return [
        SigningKey(
            place=place,
            private=_PRIVATE,
            created_at=START + timedelta(minutes=age),
            signs_from=START + timedelta(minutes=age) + (PUBLISHED_AHEAD if place else timedelta()),
        )
        for place, age in enumerate(ages)
    ]


class TestRotation:
    def test_no_key_signs_nothing(self) -> None:
        assert current_key([], START) is None

    def test_a_new_key_is_published_before_it_signs_and_the_old_one_while_its_tokens_live(self) -> None:
        keys = a_row(0, 60)

        def at(minutes: float) -> tuple[int, list[int]]:
            now = START + timedelta(minutes=minutes)
            signing = current_key(keys, now)
            assert signing is not None
            return signing.place, [key.place for key in published_keys(keys, now, TOKEN_LIFE)]

        assert at(60) == (0, [0, 1])
        assert at(69.9) == (0, [0, 1])
        assert at(70) == (1, [0, 1])
        assert at(104.9) == (1, [0, 1])
        assert at(105) == (1, [1])

    @given(
        ages=st.lists(st.integers(1, 10_000), max_size=6, unique=True),
        signed_after=st.integers(0, 12_000),
        checked_after=st.integers(0, 30),
    )
    def test_the_key_of_a_token_that_lives_is_always_published(
        self, ages: list[int], signed_after: int, checked_after: int
    ) -> None:
        keys = a_row(0, *sorted(ages))
        signed_at = START + timedelta(minutes=signed_after)
        signing = current_key(keys, signed_at)
        assert signing in published_keys(keys, signed_at + timedelta(minutes=checked_after), TOKEN_LIFE)


class TestSigningKey:
    def test_the_kid_is_the_thumbprint_of_the_public_key(self) -> None:
        """Key and thumbprint of RFC 8037, appendix A."""
        private = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        )
        key = SigningKey(place=1, private=private, created_at=START, signs_from=START)
        assert key.x == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
