"""Tokens: only a hash is kept, and each ends in time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rows import NOW
from sqlalchemy import select, text

from edge_otel.errors import TokenEnded, TokenNotFound
from edge_otel.models import tokens
from edge_otel.models.tables import Token

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def create(session, **fields):
    """Return a token's id and its text."""
    scope = {"worker": "w", "queues": None, "team": None, "lifetime": DAY, "now": NOW, "by": "ann"}
    token, secret = tokens.create(session, **scope | fields)
    session.flush()
    return token.id, secret


def test_a_new_token_is_valid_for_what_it_was_created_for(database):
    with database() as session:
        token_id, secret = create(session, worker="site7-*", queues=["a"], team="red")
    with database() as session:
        token = tokens.verify(session, secret, NOW)
        assert (token.id, token.worker, token.queues, token.team) == (token_id, "site7-*", ["a"], "red")
        assert (token.expires_at, token.created_by, token.revoked_at) == (NOW + DAY, "ann", None)


def test_the_secret_has_256_random_bits_and_is_not_in_the_database(database):
    with database() as session:
        token_id, secret = create(session)
        again = create(session)[1]
    assert secret != again
    assert secret.startswith(f"ewt_{token_id}.")
    random_part = secret.partition(".")[2]
    assert len(random_part) == 43
    with database() as session:
        stored = session.execute(text("SELECT * FROM edge_otel_token")).all()
    assert random_part not in str(stored)


def test_an_expired_a_revoked_and_a_wrong_token_are_refused_with_the_reason(database):
    with database() as session:
        token_id, secret = create(session)
        other_id, other = create(session)
        mixed = f"ewt_{token_id}.{other.partition('.')[2]}"
        assert tokens.verify(session, secret, NOW + DAY - SECOND).id == token_id
        assert "expired" in tokens.verify(session, secret, NOW + DAY)
        assert tokens.verify(session, mixed, NOW) == f"unknown token {token_id}"
        assert "unknown token" in tokens.verify(session, f"ewt_{'0' * 16}.{'x' * 43}", NOW)
        tokens.revoke(session, other_id, NOW)
        assert "revoked" in tokens.verify(session, other, NOW)


@pytest.mark.parametrize(
    "malformed",
    ["", "ewt_", "ewt_x.y", "ewt_0123456789abcdef.short", "Bearer", "ewt_0123456789ABCDEF." + "x" * 43, "é" * 64],
)
def test_what_has_not_the_form_of_a_token_is_refused(database, malformed):
    with database() as session:
        token_id, secret = create(session)
        assert tokens.verify(session, malformed, NOW) == "malformed token"
        for spoilt in (secret + "\n", secret + "x", " " + secret, secret.upper(), secret[:-1], f"{token_id}.{secret}"):
            assert tokens.verify(session, spoilt, NOW) == "malformed token"


def test_revoking_twice_keeps_the_first_time(database):
    with database() as session:
        token_id, _ = create(session)
        tokens.revoke(session, token_id, NOW)
        assert tokens.revoke(session, token_id, NOW + SECOND).revoked_at == NOW
        with pytest.raises(TokenNotFound, match="nothing"):
            tokens.revoke(session, "nothing", NOW)


def test_rotation_gives_the_same_scope_and_lifetime_and_ends_the_old_one(database):
    with database() as session:
        old_id, old = create(session, worker="site7-*", queues=["a"], team="red", lifetime=30 * DAY)
    with database() as session:
        new, secret = tokens.rotate(session, old_id, overlap=DAY, now=NOW + DAY, by="bob")
        assert (new.worker, new.queues, new.team, new.expires_at) == ("site7-*", ["a"], "red", NOW + 31 * DAY)
    with database() as session:
        assert session.get(Token, old_id).rotated_to == new.id
        assert tokens.verify(session, old, NOW + 2 * DAY - SECOND).id == old_id
        assert "expired" in tokens.verify(session, old, NOW + 2 * DAY)
        assert tokens.verify(session, secret, NOW + 30 * DAY).id == new.id
        with pytest.raises(TokenNotFound):
            tokens.rotate(session, "nothing", overlap=DAY, now=NOW, by=None)


def test_a_token_rotated_again_gives_the_lifetime_that_it_was_made_for(database):
    def rotated(session, token_id):
        new, _ = tokens.rotate(session, token_id, overlap=DAY, now=NOW, by=None)
        session.flush()
        return new.id, new.expires_at

    with database() as session:
        old_id, _ = create(session, lifetime=100 * DAY)
        # Nobody heard the answer, so that one is revoked, and another is made.
        lost_id, _ = rotated(session, old_id)
        tokens.revoke(session, lost_id, NOW)
        new_id, ends = rotated(session, old_id)
        assert ends == NOW + 100 * DAY
        assert rotated(session, new_id)[1] == rotated(session, old_id)[1] == ends


def test_rotation_never_prolongs_the_old_token(database):
    with database() as session:
        old_id, old = create(session, lifetime=SECOND)
        tokens.rotate(session, old_id, overlap=DAY, now=NOW, by=None)
        assert "expired" in tokens.verify(session, old, NOW + SECOND)


def test_use_is_recorded_at_most_once_a_minute(database):
    seen = []
    with database() as session:
        token_id, secret = create(session)
    for second in (0, 30, 59, 60, 61):
        with database() as session:
            token = tokens.verify(session, secret, NOW + second * SECOND)
            tokens.record_use(session, token, NOW + second * SECOND)
        with database() as session:
            seen.append((session.scalar(select(Token.last_used_at).where(Token.id == token_id)) - NOW).seconds)
    assert seen == [0, 0, 0, 60, 60]


@pytest.mark.parametrize(
    ("pattern", "worker", "matches"),
    [
        ("w", "w", True),
        ("w", "W", False),
        ("w", "w1", False),
        ("site7-*", "site7-a.b", True),
        ("site7-*", "site8-a", False),
        ("site7-*", "site7", False),
        ("site[12]", "site1", True),
        ("*", "anything", True),
    ],
)
def test_a_token_is_for_a_name_or_a_glob(pattern, worker, matches):
    assert tokens.matches(pattern, worker) is matches


def test_tokens_are_listed_oldest_first(database):
    with database() as session:
        ids = [create(session, now=NOW + n * SECOND)[0] for n in (2, 0, 1)]
        assert [token.id for token in tokens.every(session)] == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_nothing_takes_over_from_a_token_that_has_ended(database, end):
    with database() as session:
        token_id, _ = create(session)
        if end == "revoked":
            tokens.revoke(session, token_id, NOW)
    later = NOW + 2 * DAY if end == "expired" else NOW
    with database() as session, pytest.raises(TokenEnded):
        tokens.rotate(session, token_id, overlap=DAY, now=later, by="ann")


def test_a_token_for_a_hundred_years_lasts_as_long_as_the_database_can_tell(database):
    with database() as session:
        token_id, _ = create(session, lifetime=36_500 * DAY)
    with database() as session:
        assert tokens.get(session, token_id).expires_at > NOW + 4_000 * DAY
