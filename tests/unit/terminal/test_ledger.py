"""How far each client's input was taken, in bounded memory."""

from __future__ import annotations

from services.terminal.sessions.ledger import InputLedger, Place


def test_numbers_of_clients_are_counted_apart() -> None:
    ledger = InputLedger(lambda _: False)
    assert ledger.place("a", 1) is Place.NEXT
    assert ledger.place("a", 2) is Place.GAP
    ledger.take("a", 1)
    assert ledger.place("a", 1) is Place.TAKEN
    assert ledger.place("a", 2) is Place.NEXT
    assert ledger.place("b", 1) is Place.NEXT
    assert (ledger.confirmed("a"), ledger.confirmed("b")) == (0, 0)
    ledger.confirm("a", 1)
    assert (ledger.confirmed("a"), ledger.confirmed("b")) == (1, 0)


def test_what_is_confirmed_never_goes_back_nor_is_known_of_the_forgotten() -> None:
    ledger = InputLedger(lambda _: False, {"a": 5}, has_forgotten=True)
    assert ledger.confirmed("a") == 5
    assert ledger.place("a", 6) is Place.NEXT
    ledger.confirm("a", 3)
    assert ledger.confirmed("a") == 5
    ledger.confirm("b", 3)
    assert ledger.confirmed("b") == 0
    assert ledger.may_have_forgotten("b")


def test_of_many_clients_those_that_typed_last_are_remembered() -> None:
    ledger = InputLedger(lambda _: False)
    for number in range(16):
        ledger.take(f"client-{number}", 1)
    ledger.take("client-0", 2)
    assert not ledger.may_have_forgotten("new")
    for number in range(16, 26):
        ledger.take(f"client-{number}", 1)
    assert len(ledger) == 16
    assert ledger.place("client-0", 2) is Place.TAKEN
    assert ledger.place("client-1", 1) is Place.NEXT
    assert ledger.may_have_forgotten("client-1")
    assert not ledger.may_have_forgotten("client-0")


def test_who_is_connected_is_not_forgotten_and_makes_room_when_gone() -> None:
    connected = {f"client-{number}" for number in range(20)}
    ledger = InputLedger(connected.__contains__)
    for client in sorted(connected):
        ledger.take(client, 7)
    assert all(ledger.place(client, 7) is Place.TAKEN for client in connected)
    assert not ledger.may_have_forgotten("new")
    connected.clear()
    ledger.take("new", 1)
    assert len(ledger) == 16
