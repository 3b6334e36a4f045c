"""Who is asking: a presented credential becomes a Principal, or is Refused (docs/identity.md).

principal.py  the two outcomes
oidc.py       the authenticator for tokens of an OpenID issuer
jws.py        a compact JWS: what may be read before, and what after its signature verified
claims.py     verified claims -> Principal (pure)
keys.py       a JWKS document -> the keys that may verify (pure)
fetch.py      discovery and JWKS over HTTP, bounded
key_source.py when they are fetched, and how long they serve without the issuer
"""
