"""The pages a person sees: choose who you are."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from infra.devstack.issuer.people import PEOPLE

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 32rem; margin: 10vh auto; padding: 0 1rem }
.notice { border-left: .3rem solid #d97706; padding: .2rem .8rem }
button { display: block; width: 100%; margin: .4rem 0; padding: .6rem .8rem; font: inherit;
  text-align: left; border: 1px solid #8886; border-radius: .4rem; cursor: pointer }
button small { opacity: .7 } button.decline { text-align: center; margin-top: 1.5rem }
input { font: inherit; font-family: ui-monospace, monospace; padding: .5rem; width: 100%;
  box-sizing: border-box; text-transform: uppercase; letter-spacing: .15em }
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
)
"""No script, no frame. There is no form-action: browsers apply it to the redirect that follows
the form, and that leads to the client's own port."""


def choose(client_id: str, parameters: Iterable[tuple[str, str]]) -> str:
    """The authorization page; `parameters` are the client's request, carried along."""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in parameters
    )
    return _page(
        "Sign in",
        f"<p><b>{escape(client_id)}</b> asks to sign you in. Who are you?</p>"
        f'<form method="post" action="/authorize">{hidden}{_people()}</form>',
    )


def device(user_code: str) -> str:
    """The page where a person types what the device shows."""
    return _page(
        "Connect a device",
        '<form method="post" action="/device"><p><label>Code shown by the program'
        f'<input name="user_code" value="{escape(user_code)}" autocomplete="off" required></label>'
        f"</p><p>Compare it before you continue. Who are you?</p>{_people()}</form>",
    )


def message(title: str, text: str) -> str:
    """A page that only says something."""
    return _page(title, f"<p>{escape(text)}</p>")


def _people() -> str:
    buttons = "".join(
        f'<button name="user" value="{escape(person.username)}">{escape(person.username)} '
        f"<small>{escape(', '.join(person.groups) or 'no group')}</small></button>"
        for person in PEOPLE.values()
    )
    return f'{buttons}<button class="decline" name="user" value="">Decline</button>'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}: Gatebook development issuer</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1>"
        '<p class="notice">Development only: there are no passwords here, and whoever reaches '
        f"this page can be anyone.</p>{body}</html>"
    )
