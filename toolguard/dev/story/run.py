"""The demo: four people's calls, from registration to refusal.

It runs on one machine and for real: registration, sign-in, consent, policies, the vault, step-up,
and every refusal.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from toolguard.dev.calendar import calendar_server
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.services import run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser, BrowserError
from toolguard.dev.story.narrator import Narrator, UnexpectedStepError
from toolguard.dev.story.oauth_client import Callback
from toolguard.dev.story.people import RealPerson, ScriptedPerson, StoryPerson
from toolguard.dev.story.steps import STEPS, Clock, People, Setting, Story
from toolguard.testing.loopback import Loopback

__all__ = ["tell"]


async def tell(narrator: Narrator, *, real_browser: bool = False, protocol: str = "auto") -> None:
    """Tell the story, checking each step.

    Args:
        narrator: tells it.
        real_browser: open the pages in the real browser, instead of answering them.
        protocol: of the clients: ``"auto"`` for the newest, ``"legacy"`` for 2025-11-25.

    Raises:
        UnexpectedStepError: at the first step that is not as it should be.
    """
    clock = Clock(time.time)
    async with AsyncExitStack() as running:
        store = running.enter_context(Store())
        listeners = [running.enter_context(Loopback()) for _ in range(2)]
        urls = [f"{listener.url}/mcp" for listener in listeners]
        world = builtin_world().with_resources(*urls)
        on = running.enter_context(run_services(world, store, clock=clock))
        running.push_async_callback(on.connected.vault.aclose)
        for listener, url in zip(listeners, urls, strict=True):
            listener.start(on.guarded(calendar_server(on.google_url), url))
        setting = Setting(
            services=on,
            clock=clock,
            callback=running.enter_context(Callback()),
            mcp_url=urls[0],
            other_mcp_url=urls[1],
            protocol=protocol,
        )
        _introduce(narrator, setting)
        story = Story(narrator, setting, _people(running, narrator, real_browser=real_browser))
        try:
            for step in STEPS:
                await step(story)
        except (UnexpectedStepError, BrowserError) as error:
            narrator.failed(str(error))
            raise UnexpectedStepError(str(error)) from error
        narrator.closes()


def _introduce(narrator: Narrator, setting: Setting) -> None:
    on = setting.services
    narrator.title("toolguard demo: everything runs on this machine, nothing leaves it")
    narrator.says(f"authorization server and vault  {on.server.issuer}")
    narrator.says(f"calendar, in Google's shape     {on.google_url}")
    narrator.says(f"guarded MCP server              {setting.mcp_url}")
    for rule in on.server.world.rules:
        conditions = " and ".join(map(str, rule.conditions))
        narrator.says(f'policy "{rule.name}": {conditions} -> {", ".join(rule.grant)}')


def _people(running: AsyncExitStack, narrator: Narrator, *, real_browser: bool) -> People:
    def person(email: str, *, connects: bool = True) -> StoryPerson:
        if real_browser:
            return RealPerson(email, narrator, connects=connects)
        return _scripted(running, email, connects=connects)

    return People(
        alice=person("alice@tenant-a.example"),
        bob=person("bob@tenant-a.example"),
        carol=person("carol@tenant-b.example"),
        dora=person("dora@tenant-a.example", connects=False),
        scripted_bob=_scripted(running, "bob@tenant-a.example", connects=False),
    )


def _scripted(running: AsyncExitStack, email: str, *, connects: bool) -> ScriptedPerson:
    browser = Browser()
    running.push_async_callback(browser.aclose)
    return ScriptedPerson(email, browser, connects=connects)
