"""The development identity provider: a small OpenID issuer for one machine (docs/identity.md).

It lets whoever can reach it be anyone, which is what a developer needs and what nobody else
may have: so it binds loopback addresses only. The protocol itself is not relaxed, because a
client that works against this issuer must work against a real one.

    people.py    who can sign in
    clients.py   which programs may ask
    keyring.py   signing keys, kept on disk, rotated and revoked
    tokens.py    claims -> signed JWT
    grants.py    codes, device codes and refresh tokens waiting to be redeemed
    server.py    the OAuth 2.0 grants (on Authlib)
    pages.py     the two pages a person sees
    app.py       HTTP
"""
