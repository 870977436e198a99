"""Well-known services, each with its oddities and the page that documents them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolguard.vault.providers import Endpoints, OAuthProvider

__all__ = [
    "atlassian",
    "dropbox",
    "github",
    "github_app",
    "google",
    "hubspot",
    "linear",
    "microsoft",
    "notion",
    "openid",
    "salesforce",
    "slack",
]


def openid(
    issuer: str,
    client_id: str,
    client_secret: str,
    *,
    scopes: Sequence[str] = (),
    title: str | None = None,
) -> OAuthProvider:
    """Return any OpenID provider; its endpoints are discovered.

    ``openid`` and ``offline_access`` are always asked for: without the second there is no refresh
    token (OpenID Connect Core §11).

    Args:
        issuer: its issuer URL.
        client_id: the id of your client there.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
        title: what users call it; by default the host of the issuer.
    """
    return OAuthProvider(
        title=title or issuer.split("/")[2],
        client_id=client_id,
        client_secret=client_secret,
        issuer=issuer,
        scopes=scopes,
        always=("openid", "offline_access"),
        documentation="https://openid.net/specs/openid-connect-core-1_0.html",
    )


def google(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return Google.

    A refresh token comes with ``access_type=offline``, and again only with ``prompt=consent``.
    ``include_granted_scopes`` makes a further consent add to the earlier ones.

    Args:
        client_id: the id of your "web application" client.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="Google",
        client_id=client_id,
        client_secret=client_secret,
        issuer="https://accounts.google.com",
        endpoints=Endpoints(
            "https://accounts.google.com/o/oauth2/v2/auth",
            "https://oauth2.googleapis.com/token",
            revoke="https://oauth2.googleapis.com/revoke",
        ),
        scopes=scopes,
        always=("openid", "email"),
        # Google names these two in another way in its answers.
        includes={"https://www.googleapis.com/auth/userinfo.email": ("email",)},
        parameters={
            "access_type": "offline",
            "prompt": "consent",
            "include_granted_scopes": "true",
        },
        documentation="https://developers.google.com/identity/protocols/oauth2/web-server",
    )


def github(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return GitHub, for an OAuth app.

    Refusals come with status 200, scopes are separated by commas, and a token without expiry has
    no refresh token.

    Args:
        client_id: the id of your OAuth app.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="GitHub",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://github.com/login/oauth/authorize",
            "https://github.com/login/oauth/access_token",
            account="https://api.github.com/user",
        ),
        scopes=scopes,
        scope_separator=",",
        includes={
            "repo": ("repo:status", "repo_deployment", "public_repo", "repo:invite"),
            "user": ("read:user", "user:email", "user:follow"),
            "admin:org": ("write:org", "read:org"),
            "write:org": ("read:org",),
        },
        account_names=("login",),
        gone=frozenset({"bad_refresh_token"}),
        documentation=(
            "https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps"
        ),
    )


def github_app(client_id: str, client_secret: str) -> OAuthProvider:
    """Return GitHub, for the users of a GitHub App.

    Such tokens have no scopes, but the permissions of the app; they expire after eight hours, and
    each refresh token is good for one refresh.

    Args:
        client_id: the client id of the app (not its app id).
        client_secret: its secret.
    """
    return replace(
        github(client_id, client_secret),
        scope_parameter="",
        documentation=(
            "https://docs.github.com/en/apps/creating-github-apps/"
            "authenticating-with-a-github-app/refreshing-user-access-tokens"
        ),
    )


def microsoft(
    client_id: str, client_secret: str, *, scopes: Sequence[str] = (), tenant: str = "common"
) -> OAuthProvider:
    """Return Microsoft Entra.

    A refresh token needs ``offline_access``; answers name the scopes of Graph in short:
    write ``Mail.Read``, without its URL.

    Args:
        client_id: the application (client) id.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
        tenant: the directory whose accounts may connect; ``"common"`` for any.
    """
    root = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
    return OAuthProvider(
        title="Microsoft",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(f"{root}/authorize", f"{root}/token"),
        scopes=scopes,
        always=("openid", "email", "offline_access"),
        gone=frozenset({"interaction_required", "consent_required"}),
        documentation=(
            "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow"
        ),
    )


def slack(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return Slack, with the tokens of users (``xoxp-``).

    Scopes of users are asked for in ``user_scope``, tokens are under ``authed_user``, refusals
    come with status 200.

    Args:
        client_id: the id of your app.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="Slack",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://slack.com/oauth/v2/authorize", "https://slack.com/api/oauth.v2.access"
        ),
        scopes=scopes,
        scope_parameter="user_scope",
        scope_separator=",",
        answer_member="authed_user",
        account_names=("team.name", "authed_user.id"),
        gone=frozenset({"invalid_refresh_token", "token_revoked", "token_expired"}),
        documentation="https://docs.slack.dev/authentication/installing-with-oauth",
    )


def atlassian(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return Atlassian (OAuth 2.0, 3LO).

    It wants an ``audience``, and rotates refresh tokens with ``offline_access``.

    Args:
        client_id: the id of your app.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="Atlassian",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://auth.atlassian.com/authorize", "https://auth.atlassian.com/oauth/token"
        ),
        scopes=scopes,
        always=("offline_access",),
        parameters={"audience": "api.atlassian.com", "prompt": "consent"},
        encoding="json",
        gone=frozenset({"unauthorized_client"}),
        documentation=("https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/"),
    )


def notion(client_id: str, client_secret: str) -> OAuthProvider:
    """Return Notion.

    It has no scopes: the user chooses pages. Requests are JSON with HTTP Basic.

    Args:
        client_id: the id of your public integration.
        client_secret: its secret.
    """
    return OAuthProvider(
        title="Notion",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://api.notion.com/v1/oauth/authorize",
            "https://api.notion.com/v1/oauth/token",
            revoke="https://api.notion.com/v1/oauth/revoke",
        ),
        scope_parameter="",
        parameters={"owner": "user"},
        client_auth="basic",
        encoding="json",
        account_names=("workspace_name", "owner.user.name"),
        documentation="https://developers.notion.com/docs/authorization",
    )


def linear(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return Linear.

    Scopes are separated by commas in its answers, and ``read`` is always granted.

    Args:
        client_id: the id of your application.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="Linear",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://linear.app/oauth/authorize",
            "https://api.linear.app/oauth/token",
            revoke="https://api.linear.app/oauth/revoke",
        ),
        scopes=scopes,
        always=("read",),
        scope_separator=",",
        parameters={"prompt": "consent"},
        documentation="https://linear.app/developers/oauth-2-0-authentication",
    )


def salesforce(
    client_id: str,
    client_secret: str,
    *,
    scopes: Sequence[str] = (),
    domain: str = "login.salesforce.com",
) -> OAuthProvider:
    """Return Salesforce.

    Answers have no ``expires_in``: the session settings of the organisation decide, and a 401
    leads to a refresh. A refresh token needs ``refresh_token`` (or ``offline_access``).

    Args:
        client_id: the consumer key of your connected app.
        client_secret: its consumer secret.
        scopes: what to ask for where a tool asks for nothing in particular.
        domain: ``"test.salesforce.com"`` for sandboxes, or the organisation's own domain.
    """
    root = f"https://{domain}/services/oauth2"
    return OAuthProvider(
        title="Salesforce",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(f"{root}/authorize", f"{root}/token", revoke=f"{root}/revoke"),
        scopes=scopes,
        always=("refresh_token", "openid"),
        gone=frozenset({"inactive_user", "inactive_org"}),
        documentation=(
            "https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_web_server_flow.htm"
        ),
    )


def hubspot(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return HubSpot.

    Answers name no scopes: what was asked for was granted, or the consent failed.

    Args:
        client_id: the id of your app.
        client_secret: its secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="HubSpot",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://app.hubspot.com/oauth/authorize", "https://api.hubapi.com/oauth/v1/token"
        ),
        scopes=scopes,
        always=("oauth",),
        gone=frozenset({"BAD_REFRESH_TOKEN"}),
        documentation="https://developers.hubspot.com/docs/api/working-with-oauth",
    )


def dropbox(client_id: str, client_secret: str, *, scopes: Sequence[str] = ()) -> OAuthProvider:
    """Return Dropbox.

    A refresh token comes with ``token_access_type=offline``; ``include_granted_scopes`` makes a
    further consent add to the earlier ones.

    Args:
        client_id: the app key.
        client_secret: the app secret.
        scopes: what to ask for where a tool asks for nothing in particular.
    """
    return OAuthProvider(
        title="Dropbox",
        client_id=client_id,
        client_secret=client_secret,
        endpoints=Endpoints(
            "https://www.dropbox.com/oauth2/authorize", "https://api.dropboxapi.com/oauth2/token"
        ),
        scopes=scopes,
        parameters={"token_access_type": "offline", "include_granted_scopes": "user"},
        account_names=("account_id",),
        documentation="https://developers.dropbox.com/oauth-guide",
    )
