"""The audit log is only ever added to, and whoever gets around that is found out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from server_cases import new_store

from server import store
from server.audit import Head, HeadError, verify

ROWS = 6


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    made = new_store(tmp_path)
    for number in range(ROWS):
        outcome = "refused" if number == 2 else "done"
        store.audit(made, 100 + number, "ann", "campaign.pause", f"campaign {number}", outcome, "naïve “détail”")
    return made


def touched(connection: sqlite3.Connection, *statements: str) -> tuple[str, ...]:
    """What verifying finds after somebody has dropped the triggers and changed the log."""
    for trigger in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger['name']}")
    for statement in statements:
        connection.execute(statement)
    return verify(connection).problems


def rewritten(connection: sqlite3.Connection, first: int) -> None:
    """Make every hash from a row on fit again, the noted head too: what somebody with the whole store can do."""
    row = connection.execute("SELECT hash FROM audit WHERE id < ? ORDER BY id DESC LIMIT 1", (first,)).fetchone()
    before = row["hash"] if row else ""
    for row in connection.execute("SELECT * FROM audit WHERE id >= ? ORDER BY id", (first,)).fetchall():
        before = store.chained(before, list(tuple(row)[:-1]))
        connection.execute("UPDATE audit SET hash = ? WHERE id = ?", (before, row["id"]))
        store.set_meta(connection, store.AUDIT_HEAD, f"{row['id']} {before}")


def test_an_untouched_log_is_whole_and_leads_to_every_head_there_was(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    assert verify(connection).head is None
    heads = []
    for number in range(ROWS):
        store.audit(connection, number, "ann", "campaign.start", "campaign 1")
        found = verify(connection)
        assert (found.rows, found.problems) == (number + 1, ())
        heads.append(found.head)
    assert [verify(connection, head).problems for head in heads] == [()] * ROWS


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'bob' WHERE id = 1", "DELETE FROM audit WHERE id = 6"])
def test_the_store_refuses_to_change_or_remove_a_row(connection: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        connection.execute(statement)


@pytest.mark.parametrize("number", range(1, ROWS + 1))
@pytest.mark.parametrize(
    "change", ["time_s = 7", "actor = 'bob'", "action = 'x'", "subject = ''", "outcome = 'failed'", "detail = ''"]
)
def test_a_changed_row_is_found(connection: sqlite3.Connection, number: int, change: str) -> None:
    problems = touched(connection, f"UPDATE audit SET {change} WHERE id = {number}")
    assert problems == (f"row {number} is not what was written after the row before it",)


@pytest.mark.parametrize("number", range(1, ROWS + 1))
def test_a_removed_row_is_found(connection: sqlite3.Connection, number: int) -> None:
    problems = touched(connection, f"DELETE FROM audit WHERE id = {number}")
    assert problems[0].startswith("the log ends with" if number == ROWS else f"row {number} is missing")


def test_removed_and_renumbered_or_inserted_rows_are_found(connection: sqlite3.Connection) -> None:
    assert touched(connection, "DELETE FROM audit WHERE id = 3", "UPDATE audit SET id = id - 1 WHERE id > 3")
    assert touched(connection, "UPDATE audit SET id = id + 1 WHERE id = 5", "DELETE FROM audit WHERE id = 4")


def test_an_emptied_log_is_found(connection: sqlite3.Connection) -> None:
    (problem,) = touched(connection, "DELETE FROM audit")
    assert problem.startswith("the log ends with nothing, but 6 ")


@pytest.mark.parametrize("first", range(1, ROWS + 1))
def test_a_log_rewritten_from_a_row_on_does_not_lead_to_a_head_known_from_before(
    connection: sqlite3.Connection, first: int
) -> None:
    known = verify(connection).head
    assert known is not None
    touched(connection, f"UPDATE audit SET actor = 'bob' WHERE id = {first}")
    rewritten(connection, first)
    assert verify(connection).problems == (), "by itself such a log looks whole"
    assert verify(connection, known).problems == ("row 6 is not the one that was known by its hash",)


def test_a_head_is_read_as_it_is_printed() -> None:
    head = Head(12, "ab" * 32)
    assert Head.parse(f" {head}\n") == head
    for text in ("", "12", "12:zz", f"0:{head.hash}", f"12:{head.hash}0"):
        with pytest.raises(HeadError):
            Head.parse(text)
