"""Find pieces of tokens in texts."""

from __future__ import annotations

import math
import re
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Match", "Needles"]

# No text has so many equal characters by chance: 64 bits of a random token in hexadecimal.
_PIECE = 16
# A row of 15 contains one of these that begins at a multiple of its length.
_SEED = 8
_ONE_ALPHABET = str.maketrans("-_", "+/")
_TOKEN_CHARACTERS = re.compile(r"[A-Za-z0-9._~+/=-]*")


@dataclass(frozen=True)
class Match:
    """A piece of a token in a text.

    Attributes:
        name: the name of the token.
        start: the start of the piece in the text.
        end: the end of the piece in the text.
    """

    name: str
    start: int
    end: int


class Needles:
    """The tokens to search for; the representation shows none of them.

    A piece is 16 consecutive characters of the random part of a token, plain, in base64 (of either
    alphabet) or in hexadecimal, at any position in a text. The parts that all tokens of an issuer
    have in common (the beginning of the header, the claims) do not count.
    """

    def __init__(self) -> None:
        self._forms: list[tuple[str, str]] = []
        self._seeds: dict[str, list[tuple[int, int]]] = {}
        self._count = 0

    def add(self, name: str, token: str) -> None:
        """Look for every piece of ``token``, which is random throughout.

        Args:
            name: what to call it.
            token: in ASCII.
        """
        self._count += 1
        self._add_secret(name, token)

    def add_jwt(self, name: str, token: str, nonce: str) -> None:
        """Look for the signature of ``token``, and for where its header and payload say ``nonce``.

        Args:
            name: what to call it.
            token: a compact JWS.
            nonce: a random text, in ASCII.
        """
        self._count += 1
        *readable, signature = token.split(".")
        for segment in readable:
            self._add_secret(name, _encoded_in(segment, nonce))
        self._add_secret(name, signature)

    def _add_secret(self, name: str, secret: str) -> None:
        for form in _forms(secret):
            number = len(self._forms)
            # Before its seeds: another thread may be searching.
            self._forms.append((name, form))
            for at in range(0, len(form) - _SEED + 1, _SEED):
                self._seeds.setdefault(form[at : at + _SEED], []).append((number, at))

    def matches(self, text: str) -> Iterator[Match]:
        """Yield the pieces of tokens in ``text``, from its beginning to its end."""
        return self._runs(text, _PIECE)

    def _runs(self, text: str, shortest: int) -> Iterator[Match]:
        uniform = text.translate(_ONE_ALPHABET)
        at = 0
        while at <= len(uniform) - _SEED:
            for number, seed_at in self._seeds.get(uniform[at : at + _SEED], ()):
                name, form = self._forms[number]
                start, end = _extended(uniform, at, form, seed_at)
                if end - start >= shortest:
                    yield Match(name, start, end)
                    at = end - 1
                    break
            at += 1

    def redacted(self, text: str) -> str:
        """Return ``text`` with the name of each token in place of the words that pieces are in.

        Here half a piece is one: of a token that was broken up, little is left.

        >>> needles = Needles()
        >>> needles.add("access token", "3q2-7wD4oZkXb0Uu5mVn1Q")
        >>> needles.redacted("sent Bearer 3q2-7wD4oZkXb0Uu5mVn1Q")
        'sent Bearer <access token>'
        """
        written: list[str] = []
        done = 0
        for each in self._runs(text, _SEED):
            if each.start < done:
                continue  # in the same word as the one before
            before = text[done : each.start]
            last_word = _TOKEN_CHARACTERS.match(before[::-1])
            kept = len(before) - (0 if last_word is None else last_word.end())
            written += [before[:kept], f"<{each.name}>"]
            match = _TOKEN_CHARACTERS.match(text, each.end)
            done = each.end if match is None else match.end()
        return "".join((*written, text[done:]))

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Needles: {self._count} tokens>"


def _encoded_in(segment: str, text: str) -> str:
    """Return the part of a base64url segment that says nothing but ``text``."""
    octets = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    start = octets.index(text.encode())
    return segment[math.ceil(start * 4 / 3) : (start + len(text)) * 4 // 3]


def _forms(secret: str) -> Iterator[str]:
    """Yield how ``secret`` may be written, with one alphabet for both kinds of base64."""
    octets = secret.encode("ascii")
    yield secret.translate(_ONE_ALPHABET)
    yield octets.hex()
    for before in range(3):  # what stands before it in a longer text that is encoded
        encoded = b64encode(b"\0" * before + octets).decode()
        yield encoded[math.ceil(before * 4 / 3) : (before + len(octets)) * 4 // 3]


def _extended(text: str, at: int, form: str, form_at: int) -> tuple[int, int]:
    """Return where in ``text`` it goes on to be the same as ``form``, before and after."""
    start, end = at, at + _SEED
    back, ahead = form_at, form_at + _SEED
    while start > 0 and back > 0 and text[start - 1] == form[back - 1]:
        start, back = start - 1, back - 1
    while end < len(text) and ahead < len(form) and text[end] == form[ahead]:
        end, ahead = end + 1, ahead + 1
    return start, end
