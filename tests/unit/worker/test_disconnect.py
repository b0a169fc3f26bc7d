"""What a lost link means: how the policy is written, and what it does when."""

from __future__ import annotations

import pytest
from edge_worker.contact import Contact
from edge_worker.disconnect import Policy, Pressure, press, read_policy
from edge_worker.lifeline import boot, overdue

POLICY = Policy(stop_after=100, grace=10)


def contact(folder, at, policy=POLICY):
    """Return the contact of a daemon that was started, and was answered, at that time."""
    made = Contact(folder, policy, at)
    made.answered()
    return made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("keep", None),
        ("stop-after 30m", 1800),
        ("stop-after 90", 90),
        ("stop-after 90s", 90),
        ("stop-after 1.5 h", 5400),
        ("stop-after  2d ", 172_800),
    ],
)
def test_a_policy_is_read(text, seconds):
    assert read_policy(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "stop", "stop-after", "stop-after 0", "stop-after -5m", "stop-after 5w", "stop-after 366d", "keep 5m"]
)
def test_what_is_no_policy_is_answered_with_what_to_write(text):
    with pytest.raises(ValueError, match="stop-after 30m"):
        read_policy(text)


@pytest.mark.parametrize(
    ("silence", "pressure"),
    [(0, Pressure.NONE), (99.9, Pressure.NONE), (100, Pressure.STOP), (109.9, Pressure.STOP), (110, Pressure.KILL)],
)
def test_jobs_are_stopped_and_then_killed(silence, pressure):
    assert press(POLICY, silence) is pressure
    assert press(Policy(), silence) is Pressure.NONE


def test_silence_counts_from_the_sending_of_what_was_answered(tmp_path):
    heard = contact(tmp_path, 1000)
    heard.sending(1010)
    assert heard.silence(1030) == 30
    heard.answered()
    assert heard.silence(1030) == 20


def limit(folder):
    """Return the seconds after which supervisors stop their tasks by themselves; None: never."""
    return float((folder / "contact").read_text().split()[2]) if (folder / "contact").exists() else None


@pytest.mark.parametrize("before", [POLICY, Policy()])
def test_a_policy_that_stops_jobs_sooner_is_heeded_at_once(tmp_path, before):
    heard = contact(tmp_path, 1000, before)
    heard.heed(sooner := Policy(50, 5))
    assert heard.policy == sooner
    assert heard.facts == {"jobs_stopped_after": 55}
    assert limit(tmp_path) == 75


@pytest.mark.parametrize(("later", "told"), [(Policy(200, 5), {"jobs_stopped_after": 205}), (Policy(), {})])
def test_a_policy_that_stops_jobs_later_is_heeded_when_the_server_knows_of_it(tmp_path, later, told):
    heard = contact(tmp_path, 1000)
    heard.sending(1010)
    heard.heed(later)
    assert heard.facts == told
    heard.answered()
    # That answer was to a heartbeat with the former promise.
    assert (heard.policy, limit(tmp_path)) == (POLICY, 130)
    heard.sending(1020)
    assert heard.policy == POLICY
    heard.answered()
    assert (heard.policy, limit(tmp_path)) == (later, 225 if told else None)


def test_a_policy_that_was_taken_back_before_the_answer_does_not_count(tmp_path):
    heard = contact(tmp_path, 1000)
    heard.heed(Policy())
    heard.sending(1010)
    heard.heed(POLICY)
    heard.answered()
    assert (heard.policy, limit(tmp_path)) == (POLICY, 130)


def test_the_last_contact_outlives_the_daemon_but_not_the_machine(tmp_path):
    contact(tmp_path, 1050)
    again = Contact(tmp_path, POLICY, 1120)
    assert again.silence(1120) == pytest.approx(70, abs=0.01)
    text = again.path.read_text()
    again.path.write_text(text.replace(boot(), "another-boot"))
    assert Contact(tmp_path, POLICY, 1120).silence(1120) == 0


@pytest.mark.parametrize("text", ["", "one", "a b c", "\x00" * 60])
def test_a_contact_that_cannot_be_read_is_as_none(tmp_path, text):
    (tmp_path / "contact").write_text(text)
    assert Contact(tmp_path, POLICY, 5).silence(7) == 2
    assert overdue(text, boot(), 1e9) is None


def test_it_is_written_seldom_and_in_place(tmp_path):
    heard = contact(tmp_path, 1050)
    inode, text = heard.path.stat().st_ino, heard.path.read_text()
    heard.sending(1055)
    heard.answered()
    assert heard.path.read_text() == text
    heard.sending(1065)
    heard.answered()
    assert heard.path.read_text() != text
    assert (heard.path.stat().st_ino, len(heard.path.read_text())) == (inode, len(text))


def test_to_keep_leaves_nothing_that_supervisors_heed(tmp_path):
    contact(tmp_path, 1050)
    assert not contact(tmp_path, 1060, Policy()).path.exists()


def test_what_supervisors_are_told_is_what_is_written_and_newer(tmp_path):
    heard = contact(tmp_path, 1000)
    assert heard.record == heard.path.read_text()
    heard.sending(1005)
    heard.answered()
    assert float(heard.record.split()[1]) == 1005
    assert overdue(Contact(tmp_path, Policy(), 1000).record, boot(), 1e9) is None


def test_supervisors_come_after_the_daemon_and_within_the_margin_of_the_server(tmp_path):
    record = contact(tmp_path, 1000).path.read_text()
    assert overdue(record, boot(), 1000 + 110) is None
    assert overdue(record, boot(), 1000 + 140) == pytest.approx(140)
    assert overdue(record, "another-boot", 1e9) is None
