"""The steps of the demo, with the expected results.

Each one is performed for real, and its result compared with the expected one; the first
difference ends the demo.
"""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass

from toolguard.dev.services import APP, Services
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.narrator import Narrator
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.story.people import ScriptedPerson, StoryPerson
from toolguard.http.challenge import parse

__all__ = ["STEPS", "Clock", "People", "Setting", "Story"]

_READ, _WRITE, _FETCH = "mcp:calendar.readonly", "mcp:calendar.write", "outbound.token.fetch"
_DAY = {"time_min": "2030-01-07T00:00:00Z", "time_max": "2030-01-08T00:00:00Z"}
_HOUR = {"start": "2030-01-07T10:00:00Z", "end": "2030-01-07T11:00:00Z"}
_TOOLS = {
    "list_calendar_events": ["time_min", "time_max"],
    "query_availability": ["time_min", "time_max"],
    "create_calendar_event": ["title", "start", "end"],
    "delete_calendar_event": ["event_id"],
}
_A_MOMENT = 15
_AFTER_EXPIRY = 600


class Clock:
    """The time, which the story can put forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._now() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Let that much time have passed."""
        self._ahead += seconds


@dataclass(frozen=True)
class People:
    """The people of the story; ``scripted_bob`` has a browser of his own in any case."""

    alice: StoryPerson
    bob: StoryPerson
    carol: StoryPerson
    dora: StoryPerson
    scripted_bob: ScriptedPerson


class _Application:
    """One person's MCP client application, at one server."""

    def __init__(
        self,
        setting: Setting,
        person: StoryPerson,
        *,
        url: str | None = None,
        redirect_uri: str | None = None,
    ) -> None:
        url = url or setting.mcp_url
        self.person = person
        self.signed_in = SignedInClient(url, person, setting.callback, redirect_uri=redirect_uri)
        self.client = MCPClient(url, auth=self.signed_in.auth, protocol=setting.protocol)


@dataclass(frozen=True)
class Setting:
    """Where the story plays.

    Attributes:
        services: what runs.
        clock: the time on it.
        callback: where clients get their answers.
        mcp_url: the guarded server that the story is about.
        other_mcp_url: another one.
        protocol: what the clients speak, see :class:`MCPClient`.
    """

    services: Services
    clock: Clock
    callback: Callback
    mcp_url: str
    other_mcp_url: str
    protocol: str


class Story:
    """What the steps share: the narrator, the setting, the people and their applications."""

    def __init__(self, narrator: Narrator, setting: Setting, people: People) -> None:
        self.narrator = narrator
        self.setting = setting
        self.services = setting.services
        self.people = people
        self.alice = _Application(setting, people.alice)
        self.dora = _Application(setting, people.dora)

    async def write(self, application: _Application, title: str) -> Outcome:
        """Let an application create an event."""
        outcome = await application.client.call("create_calendar_event", title=title, **_HOUR)
        self.tell(application, outcome)
        return outcome

    async def delete(self, application: _Application, event_id: str) -> Outcome:
        """Let an application delete an event."""
        outcome = await application.client.call("delete_calendar_event", event_id=event_id)
        self.tell(application, outcome)
        return outcome

    async def approve(self, person: StoryPerson, url: str) -> None:
        """Let a person open the page of a question, and say yes."""
        approvals = self.services.approvals[self.setting.mcp_url]

        async def is_approved() -> bool:
            found = await approvals.store.find(url.rpartition("/")[2], self.setting.clock())
            return found is not None and found.state == "approved"

        await person.see_to(url, is_approved)

    async def read(self, application: _Application) -> Outcome:
        """Let an application list the events of the day."""
        outcome = await application.client.call("list_calendar_events", **_DAY)
        self.tell(application, outcome)
        return outcome

    def tell(self, application: _Application, outcome: Outcome, *, brief: bool = True) -> None:
        """Show an outcome, with the pages the person saw."""
        self.narrator.outcome(outcome, application.person.visits, brief=brief)
        application.person.visits.clear()

    def tell_token(self, application: _Application) -> None:
        """Say what the token that an application holds now is good for; not the token."""
        payload = application.signed_in.access_token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=="))
        self.narrator.says(
            f"The token is for {claims['aud']}, of user {claims['sub']} in tenant "
            f"{claims['dct']}, good for {claims['exp'] - claims['iat']} s: {claims['scope']}"
        )

    def titles(self, person: StoryPerson) -> list[str]:
        """Return what is in a person's calendar at the provider."""
        return sorted(event["summary"] for event in self.services.google.events(person.email))


async def stranger(story: Story) -> None:
    """An application with an unapproved address is not registered."""
    story.narrator.step("A stranger's application wants to be registered.")
    heard: list[str] = []
    with _listening(heard):
        thief = _Application(
            story.setting, story.people.alice, redirect_uri="https://evil.example/steal"
        )
        outcome = await thief.client.tools()
    story.tell(thief, outcome, brief=False)
    registration = [each for each in outcome.exchanges if each.url.endswith("/register")]
    story.narrator.expect([400], [each.status for each in registration])
    story.narrator.expect(1, sum("evil.example" in line for line in heard))
    story.narrator.says(
        "Only addresses that were approved can be registered; https://evil.example/steal is not "
        f"one of them. In the server's log: {heard[-1]}"
    )


async def alice_signs_in(story: Story) -> None:
    """From a 401 to a token: discovery, registration, sign-in, consent."""
    story.narrator.step("Alice of tenant A asks her assistant which calendar tools there are.")
    listed = await story.alice.client.tools()
    story.tell(story.alice, listed, brief=False)
    refusals = [each for each in listed.exchanges if each.status >= 400]  # noqa: PLR2004 - HTTP
    story.narrator.expect([401], [each.status for each in refusals])
    story.narrator.expect(_TOOLS, listed.data)
    story.narrator.says(
        "The 401 says where to sign in. Her e-mail domain led to her tenant's own identity "
        "provider. On the consent page she connected Google Calendar: its token is in the vault."
    )
    story.tell_token(story.alice)
    for tool, parameters in listed.data.items():
        story.narrator.says(f"{tool}({', '.join(parameters)})")
    story.narrator.says("User and Google token are no parameters: the guard injects them.")

    story.narrator.step("It lists her events.")
    read = await story.read(story.alice)
    story.narrator.expect((True, []), (read.ok, read.data))
    story.narrator.says(
        "The guard exchanged her token at the vault for her Google token. The day is free."
    )


async def alice_writes(story: Story) -> None:
    """A refusal, a step-up, and the same call served."""
    story.narrator.step("It creates an event.")
    served = await story.write(story.alice, "Design review")
    story.narrator.expect([403, 200], _statuses(story, served))
    # What she holds comes first where her client would lose it, and then what is missing.
    headers = [each.headers.get("www-authenticate") for each in served.exchanges]
    challenges = [parse(header) for header in headers if header is not None]
    story.narrator.expect(_WRITE, challenges[0].scope[-1])
    story.narrator.expect((True, "Design review"), (served.ok, served.data["title"]))
    story.narrator.says(
        "Refused before the tool ran, and the challenge names the scope that was missing. Her "
        'client asked her for it, the policy "Scheduler Write Access" agreed, and the same call '
        "was served."
    )
    story.tell_token(story.alice)
    story.narrator.expect(["Design review"], story.titles(story.people.alice))
    story.narrator.says(f"In her Google calendar: {_HOUR['start']}  Design review")


async def alice_deletes(story: Story) -> None:
    """One call is approved by its user: a call with other arguments is not."""
    story.narrator.step("Her assistant deletes it again: each call of that tool needs her yes.")
    event_id = story.services.google.events(story.people.alice.email)[0]["id"]
    asked = await story.delete(story.alice, event_id)
    story.narrator.expect((False, True), (asked.ok, asked.connect_url is not None))
    story.narrator.says(f"Her client is asked to open {asked.connect_url} ({asked.connect_form})")
    await story.approve(story.people.alice, asked.connect_url or "")
    story.narrator.visit(story.people.alice.visits.pop())

    story.narrator.step("It names another event, and then the one that she saw on the page.")
    other = await story.delete(story.alice, f"{event_id}0")
    is_new = other.connect_url not in (None, asked.connect_url)
    story.narrator.expect((False, True), (other.ok, is_new))
    served = await story.delete(story.alice, event_id)
    story.narrator.expect((True, []), (served.ok, story.titles(story.people.alice)))
    story.narrator.says(
        "Her yes was for one call with those arguments: for another event her client got another "
        "link. The call that she approved was served, once."
    )


async def _listing_events(story: Story, person: StoryPerson) -> _Application:
    """List the events of a person who has none; return their application."""
    application = _Application(story.setting, person)
    read = await story.read(application)
    story.narrator.expect((True, []), (read.ok, read.data))
    story.tell_token(application)
    return application


async def bob_is_refused(story: Story) -> None:
    """The policy refuses the step-up, and the client stops."""
    story.narrator.step("Bob of tenant A, who is not a scheduler, lists his events.")
    bob = await _listing_events(story, story.people.bob)

    story.narrator.step("His assistant creates an event.")
    await _refused_by_policy(story, bob)
    story.narrator.says(
        "The client asked for the scope, and the policy gives Bob only "
        '"Read-Only Access for All Others". The client stopped: it did not ask again.'
    )


async def carol_is_refused(story: Story) -> None:
    """The same for another tenant, with another identity provider."""
    story.narrator.step("Carol of tenant B, whose identity provider is another one, does both.")
    carol = await _listing_events(story, story.people.carol)
    await _refused_by_policy(story, carol)
    story.narrator.says("No tenant but A may write.")


async def dora_connects(story: Story) -> None:
    """A connect URL that is of use to one user only."""
    story.narrator.step("Dora, a scheduler who has not connected Google, creates an event.")
    asked = await story.write(story.dora, "Budget")
    story.narrator.expect((False, True), (asked.ok, asked.connect_url is not None))
    story.narrator.says(
        "She holds the scope by now, but has not connected her calendar: her client is asked to "
        f"open {asked.connect_url} ({asked.connect_form})"
    )
    story.tell_token(story.dora)

    url = asked.connect_url or ""
    story.narrator.step("Somebody sends that link to Bob, who opens it.")
    bob, connected = story.people.scripted_bob, story.services.connected
    await bob.visit(url)
    story.narrator.visit(bob.visits.pop())
    shown = (bob.last.status, bob.last.paragraphs[0]) if bob.last is not None else (0, "")
    story.narrator.expect((403, False), (shown[0], await connected.has("dora", APP)))
    story.narrator.says(f"{shown[0]} Forbidden. {shown[1]}")

    story.narrator.step("Dora opens it herself, and her assistant tries again.")
    story.people.dora.connects = True
    await story.people.dora.see_to(url, lambda: connected.has("dora", APP))
    story.narrator.visit(story.people.dora.visits.pop())
    served = await story.write(story.dora, "Budget")
    story.narrator.expect((True, ["Budget"]), (served.ok, story.titles(story.people.dora)))
    story.narrator.says("Connected, and served.")


async def dora_disconnects(story: Story) -> None:
    """What was revoked at Google is noticed at the next call."""
    story.narrator.step("Dora takes the access back at Google, and her assistant goes on.")
    google, email = story.services.google, story.people.dora.email
    page = f"{story.services.google_url}/connections"

    async def is_taken_back() -> bool:
        return not google.has_consents(email)

    await story.people.dora.see_to(page, is_taken_back)
    # A vault does not ask again for a token that it was given a moment ago.
    story.setting.clock.put_forward(_A_MOMENT)
    story.narrator.visit(story.people.dora.visits.pop())
    asked = await story.write(story.dora, "Lunch")
    story.narrator.expect((False, True), (asked.ok, asked.connect_url is not None))
    story.narrator.expect(["Budget"], story.titles(story.people.dora))
    story.narrator.says(
        "Google answered 401 and no fresh token was to be had: Dora is asked to connect again "
        f"({asked.connect_form})."
    )


async def a_token_expires(story: Story) -> None:
    """An expired token is refused, and the client refreshes it."""
    story.narrator.step("Ten minutes pass (all clocks are put forward). Alice's token has expired.")
    old = story.alice.signed_in.access_token
    story.setting.clock.put_forward(_AFTER_EXPIRY)
    story.alice.signed_in.let_pass(_AFTER_EXPIRY)
    refused = await MCPClient(story.setting.mcp_url, token=old).tools()
    story.narrator.exchange(refused.exchange)
    story.narrator.expect((401, "invalid_token"), _challenged(refused))
    story.narrator.says("So much for whoever kept the old token. Her own client refreshes it:")
    read = await story.read(story.alice)
    asked = [each.about for each in read.exchanges if each.url.endswith("/token")]
    story.narrator.expect((True, ["refresh_token"]), (read.ok, asked))
    story.narrator.says("Served, and the refresh token was replaced by a new one.")


async def a_foreign_token(story: Story) -> None:
    """A token for another server is of no use here."""
    story.narrator.step("Alice signs in at another server, which then tries her token here.")
    other = _Application(story.setting, story.people.alice, url=story.setting.other_mcp_url)
    listed = await other.client.tools()
    story.tell(other, listed)
    story.narrator.expect(_TOOLS, listed.data)
    story.tell_token(other)
    stolen = MCPClient(story.setting.mcp_url, token=other.signed_in.access_token)
    refused = await stolen.tools()
    story.narrator.exchange(refused.exchange)
    story.narrator.expect((401, "invalid_token"), _challenged(refused))
    story.narrator.says("Signed by the right issuer, not expired, and not for this server.")


STEPS = (
    stranger,
    alice_signs_in,
    alice_writes,
    alice_deletes,
    bob_is_refused,
    carol_is_refused,
    dora_connects,
    dora_disconnects,
    a_token_expires,
    a_foreign_token,
)
"""The steps, in their order."""


async def _refused_by_policy(story: Story, application: _Application) -> None:
    refused = await story.write(application, "Coup")
    statuses = _statuses(story, refused)
    # A client that is told "access_denied" does not come back; one that is given a token without
    # the scope comes back once.
    story.narrator.expect((False, {403}, True), (refused.ok, {*statuses}, len(statuses) <= 2))  # noqa: PLR2004
    story.narrator.expect({_READ, _FETCH}, {*application.signed_in.scopes})
    story.narrator.expect([], story.titles(application.person))


def _statuses(story: Story, outcome: Outcome) -> list[int]:
    """Return the statuses of the tool calls on the wire."""
    calls = (each for each in outcome.exchanges if each.url == story.setting.mcp_url)
    return [each.status for each in calls if each.about.startswith("tools/call")]


def _challenged(outcome: Outcome) -> tuple[int, str | None]:
    header = outcome.exchange.headers.get("www-authenticate")
    return outcome.exchange.status, parse(header).error if header is not None else None


class _listening(logging.Handler):  # noqa: N801 - reads as a phrase: with _listening(lines)
    """Collects what the development server logs."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("toolguard.dev").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("toolguard.dev").removeHandler(self)
