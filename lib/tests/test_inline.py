"""What an approach without a queue promises."""

from __future__ import annotations

import pytest

from imqueue import registry
from imqueue.backend import Inline

BATCHES = [[b"1", b"2", b"3"], [b"4"], [b"5", b"6"]]


def inline_names() -> list[str]:
    return [name for name in registry.names() if issubclass(registry.load(name), Inline)]


@pytest.fixture(params=inline_names())
def inline(request: pytest.FixtureRequest) -> Inline:
    loaded = registry.load(request.param)
    assert issubclass(loaded, Inline)
    return loaded()


def test_pump_hands_over_every_body_once_and_in_order(inline: Inline) -> None:
    handled: list[bytes] = []

    inline.pump(BATCHES, handled.extend)

    assert handled == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_pump_has_handled_everything_when_it_returns_even_from_a_generator(inline: Inline) -> None:
    handled: list[bytes] = []

    inline.pump((batch for batch in BATCHES * 100), handled.extend)

    assert len(handled) == 600


def test_an_error_of_the_handler_leaves_pump(inline: Inline) -> None:
    def fail(batch: object) -> None:
        raise ZeroDivisionError(str(batch))

    with pytest.raises(ZeroDivisionError):
        inline.pump(BATCHES, fail)


def test_an_inline_backend_needs_no_server_and_one_process(inline: Inline) -> None:
    assert inline.declares.server is None
    assert inline.declares.in_process
    assert inline.declares.built_on
