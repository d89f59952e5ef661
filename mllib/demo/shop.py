"""The made-up web shop of the demo data: what its services say, what a request leaves behind, what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of log line: where it comes from and what it says."""

    service: str
    level: str
    text: str  # parameters in braces, see PARAMETERS
    ms: float = 0.0  # median response time; 0 if the line has none
    status: int | None = None
    reworded: str | None = None  # the text since the service's first deploy
    sigma: float = 0.45  # spread of the logarithm of the response time


LINES = {
    # requests; the gateway's line comes last, as it is written when the answer has gone out
    "home": Line("gateway", "INFO", "GET / 200 in {ms} ms", 35, 200),
    "product": Line("gateway", "INFO", "GET /products/{sku} 200 in {ms} ms", 60, 200),
    "find": Line("gateway", "INFO", "GET /search 200 in {ms} ms", 140, 200),
    "cart": Line("gateway", "INFO", "POST /cart/{id} 200 in {ms} ms", 90, 200),
    "order": Line("gateway", "INFO", "POST /orders 201 in {ms} ms", 420, 201),
    "login": Line("gateway", "INFO", "POST /login 200 in {ms} ms", 110, 200),
    "missing": Line("gateway", "WARN", "GET /{word}.php 404 no such page", 8, 404),
    "forbidden": Line("gateway", "WARN", "POST /login 401 in {ms} ms", 105, 401),
    "unpaid": Line("gateway", "WARN", "POST /orders 402 in {ms} ms", 380, 402),
    "stock": Line("inventory", "DEBUG", "stock of {sku}: {n}", 9, None),
    "reserve": Line(
        "inventory", "INFO", "reserved {n} of {sku} for order {id}", 30, None, "order {id}: {n} x {sku} set aside"
    ),
    "query": Line("search", "INFO", "query {word} matched {n} products", 80, None, "{n} hits for {word}"),
    "suggest": Line("search", "DEBUG", "suggestions for {word} from cache", 6, None),
    "token": Line("auth", "DEBUG", "token of user {id} verified", 5, 200),
    "signin": Line("auth", "INFO", "user {id} signed in from {ip}", 70, 200),
    "password": Line("auth", "WARN", "wrong password for user {id} from {ip}", 75, 401),
    "placed": Line(
        "checkout", "INFO", "order {id} placed, total {amount} EUR", 190, 201, "placed order {id} over {amount}"
    ),
    "priced": Line("checkout", "DEBUG", "basket {id} priced", 18, None),
    "charged": Line("payments", "INFO", "charged {amount} EUR for order {id}", 240, 200),
    "declined": Line("payments", "ERROR", "card declined for order {id}: insufficient funds", 230, 402),
    # the background, which no request asked for
    "mail": Line(
        "mailer", "INFO", "sent confirmation of order {id} in {ms} ms", 310, None, "mail for order {id} accepted"
    ),
    "bounce": Line("mailer", "WARN", "mail to user {id} bounced: mailbox full", 280, None),
    "smtp": Line("mailer", "ERROR", "relay closed the connection, mail {id} is queued again", 2500, None),
    "feed": Line("inventory", "INFO", "supplier feed imported, {n} rows in {ms} ms", 4000, None),
    "mismatch": Line("inventory", "ERROR", "stock of {sku} differs from the count by {n}", 0, None),
    "refresh": Line("search", "INFO", "index refreshed, {n} documents", 1500, None),
    "slow": Line("search", "WARN", "slow query {word} took {ms} ms", 1400, None),
    "settle": Line("payments", "INFO", "settlement batch {id} closed with {n} charges", 2100, None),
    "keys": Line("auth", "INFO", "signing key rotated, next rotation in {n} hours", 0, None),
    "alive": Line("gateway", "DEBUG", "health check ok", 2, 200),
    "offers": Line("recommender", "INFO", "{n} offers for user {id}", 55, 200),
    "fallback": Line("recommender", "ERROR", "no profile of user {id}, default offers served", 12, 200),
    # a deploy
    "stop": Line("", "INFO", "shutting down, {n} requests in flight", 0, None),
    "start": Line("", "INFO", "version {version} is up after {ms} ms", 4200, None),
    "notready": Line("", "WARN", "health check failed, still starting", 30, 503),
    # trouble
    "lock": Line("inventory", "WARN", "waited {ms} ms for a lock on table stock", 6500, None),
    "pool": Line("checkout", "ERROR", "no free database connection after {ms} ms", 10000, 500),
    "acquirer": Line("payments", "ERROR", "acquirer answered 502 for order {id}", 4500, 502),
    "bad": Line("gateway", "ERROR", "POST /orders 502 upstream payments", 4700, 502),
    "full": Line("search", "ERROR", "cannot write segment {id}: no space left on device", 900, 507),
    "stale": Line("search", "WARN", "serving results that are {n} minutes old", 95, 200),
    "pause": Line("recommender", "WARN", "garbage collection paused for {ms} ms", 2600, None),
    "killed": Line("recommender", "FATAL", "out of memory: worker {digit} killed", 0, 500),
    "expired": Line("mailer", "ERROR", "TLS handshake failed: certificate has expired", 3200, 526),
    "retry": Line("gateway", "WARN", "retry {digit} of GET /products/{sku}", 2800, 503),
    "shed": Line("gateway", "ERROR", "too many requests, {n} shed", 1100, 503),
    "locked": Line("auth", "WARN", "account of user {id} locked after failed attempts", 70, 403),
    # what only drifting logs hold, see drift.py
    "deferred": Line("checkout", "WARN", "ledger sync of order {id} deferred, attempt {digit} in {ms} ms", 900, 202),
    "consent": Line("recommender", "INFO", "consent of user {id} evaluated against {n} rules", 35, 200),
    "pool2": Line("checkout", "ERROR", "backend saturated, request parked after {ms} ms", 10000, 500),
    "acquirer2": Line("payments", "ERROR", "order {id}: bank gateway unreachable", 4500, 502),
    "bad2": Line("gateway", "ERROR", "checkout flow aborted by dependency payments", 4700, 502),
    "full2": Line("search", "ERROR", "flush of shard {id} rejected, volume is at quota", 900, 507),
    "retry2": Line("gateway", "WARN", "hedged attempt {digit} for {sku}", 2800, 503),
    "expired2": Line("mailer", "ERROR", "peer not trusted, mail {id} kept back", 3200, 526),
}
"""The catalogue of messages. An empty service is filled in by the deploy that writes the line."""

FLOWS: dict[tuple[str, ...], float] = {
    ("home",): 14,
    ("offers", "home"): 8,
    ("stock", "product"): 26,
    ("query", "find"): 14,
    ("suggest", "query", "find"): 6,
    ("priced", "stock", "cart"): 9,
    ("token", "priced", "reserve", "charged", "placed", "order"): 4,
    ("token", "priced", "declined", "unpaid"): 0.5,
    ("signin", "login"): 6,
    ("password", "forbidden"): 0.9,
    ("missing",): 1.2,
}
"""The lines of one request, in order, and how often such a request comes."""

BACKGROUND = {
    "mail": 20.0,
    "bounce": 0.8,
    "smtp": 0.4,
    "feed": 1.2,
    "mismatch": 0.5,
    "refresh": 2.0,
    "slow": 0.8,
    "settle": 1.0,
    "keys": 0.4,
    "alive": 22.0,
    "offers": 6.0,
    "fallback": 0.8,
    "stale": 0.1,
    "lock": 0.1,
    "pause": 0.15,
}
"""Lines that no request asked for, and how often they come. The last three also tell of trouble, but not always."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A kind of trouble: the lines it adds, with their weight, slowdown and label."""

    lines: tuple[tuple[str, float, float, int], ...]
    one_host: bool = False


INCIDENTS = {
    "slow database": Incident(
        (
            ("reserve", 3, 90, 1),
            ("placed", 3, 25, 1),
            ("order", 2, 16, 1),
            ("lock", 3, 1, 1),
            ("pool", 2, 1, 1),
            ("token", 2, 1, 0),
        )
    ),
    "failing payments": Incident((("acquirer", 5, 1, 1), ("bad", 5, 1, 1), ("priced", 2, 1, 0), ("declined", 1, 1, 0))),
    "disk full": Incident((("full", 6, 1, 1), ("stale", 3, 12, 1), ("query", 2, 3, 0)), one_host=True),
    "memory leak": Incident(
        (("pause", 6, 2, 1), ("offers", 4, 60, 1), ("killed", 1, 1, 1), ("offers", 2, 1, 0)), one_host=True
    ),
    "certificate expiry": Incident((("expired", 8, 1, 1), ("smtp", 1, 1, 0))),
    "retry storm": Incident((("retry", 7, 1, 1), ("shed", 3, 1, 1), ("product", 2, 12, 1), ("stock", 2, 2, 0))),
    "password guessing": Incident((("password", 8, 1, 1), ("locked", 2, 1, 1), ("signin", 1, 1, 0))),
}
