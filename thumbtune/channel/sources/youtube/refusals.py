"""Google's error answers: what kind of refusal one is, and what mends it.

https://developers.google.com/youtube/v3/docs/errors names the reasons of YouTube, and
https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto those of Google.
"""

from typing import Any, Literal, NamedTuple

NO_PUBLIC_VIDEOS = "has no public videos. Choose another channel, or run again when it has some."

Kind = Literal["day", "passing", "key", "other"]
"""The day's quota is used up; another try may help; the key or its project is wrong; the rest."""

KEYS = "https://console.cloud.google.com/apis/credentials"
LIBRARY = "https://console.cloud.google.com/apis/library/youtube.googleapis.com"

DAY_REASONS = {"quotaExceeded", "dailyLimitExceeded"}
PASSING_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"}
PASSING_REASONS |= {"RATE_LIMIT_EXCEEDED", "SERVICE_UNAVAILABLE", "processingFailure"}
PASSING_STATES = {"UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "INTERNAL"}
"""Of https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""
PASSING_CODES = {408, 409, 425, 429}

_RESTRICTED = f"Open the key at {KEYS} and set its application restrictions to None or to IP "
_OTHER_PROJECT = "or set YOUTUBE_API_KEY to a key of another project."
_ACCESS = "A call with an API key needs no access token: set YOUTUBE_API_KEY to a key, copied "
_ACCESS += f"whole from {KEYS}."
_INVALID = f"Set YOUTUBE_API_KEY to a key that exists, copied whole from {KEYS}."
_DISABLED = (
    f"Enable it for the key's project at {LIBRARY} and wait some minutes, or set YOUTUBE_API_KEY "
    "to a key of a project in which the YouTube Data API v3 is enabled."
)
_WEB_PAGES = (
    "The key is restricted to web pages (HTTP referrers), and this is a program. "
    f"{_RESTRICTED}addresses."
)
_APPS = f"The key is restricted to apps of telephones. {_RESTRICTED}addresses."
_BILLING = (
    "The billing account of the key's project is disabled. Mend it at "
    f"https://console.cloud.google.com/billing, {_OTHER_PROJECT}"
)
_EXPIRED = f"The key has expired. Set YOUTUBE_API_KEY to a key made anew at {KEYS}."
_SUSPENDED = (
    "Google has suspended the key's project. Read why at https://console.cloud.google.com, "
    f"{_OTHER_PROJECT}"
)
_POLICY = (
    "A rule of the key's organisation forbids the call. Ask its administrator, " + _OTHER_PROJECT
)
_PROJECT = f"The key's project is not there or not open to it. Look at {KEYS}, {_OTHER_PROJECT}"

KEY_MENDS = {
    "keyExpired": _EXPIRED,
    "API_KEY_EXPIRED": _EXPIRED,
    "API_KEY_HTTP_REFERRER_BLOCKED": _WEB_PAGES,
    "API_KEY_IP_ADDRESS_BLOCKED": (
        "The key is restricted to IP addresses, and this machine's is not among them. Add it to "
        f"the key at {KEYS}."
    ),
    "API_KEY_ANDROID_APP_BLOCKED": _APPS,
    "API_KEY_IOS_APP_BLOCKED": _APPS,
    "API_KEY_SERVICE_BLOCKED": (
        f"The key's API restrictions leave out the YouTube Data API v3. Add it to them at {KEYS}."
    ),
    "ipRefererBlocked": (
        "The key is restricted to web pages or IP addresses that this machine is none of. "
        f"{_RESTRICTED}addresses with this machine's."
    ),
    "SERVICE_DISABLED": _DISABLED,
    "accessNotConfigured": _DISABLED,
    "BILLING_DISABLED": _BILLING,
    "CONSUMER_SUSPENDED": _SUSPENDED,
    "CONSUMER_INVALID": _PROJECT,
    "USER_PROJECT_DENIED": _PROJECT,
    "RESOURCE_QUOTA_EXCEEDED": (
        f"The key's project has no quota left of this kind. See its quotas, {_OTHER_PROJECT}"
    ),
    "GCP_SUSPENDED": _SUSPENDED,
    "SERVICE_NOT_VISIBLE": _DISABLED,
    "SECURITY_POLICY_VIOLATED": _POLICY,
    "LOCATION_POLICY_VIOLATED": _POLICY,
    "LOCATION_ORG_POLICY_VIOLATED": _POLICY,
    "ORG_RESTRICTION_VIOLATION": _POLICY,
    "RESOURCE_USAGE_RESTRICTION_VIOLATED": _POLICY,
    "ENDPOINT_USAGE_RESTRICTION_VIOLATED": _POLICY,
    "ACCESS_TOKEN_EXPIRED": _ACCESS,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": _ACCESS,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": _ACCESS,
    "CREDENTIALS_MISSING": _INVALID,
    "API_KEY_INVALID": _INVALID,
    "keyInvalid": _INVALID,
    "dailyLimitExceededUnreg": _INVALID,
    "authError": _INVALID,
    "forbidden": (
        "Set YOUTUBE_API_KEY to a key of a project in which the YouTube Data API v3 is enabled: "
        f"{KEYS}."
    ),
}
"""Reason → what mends it, what says most first: Google often sends `forbidden` beside it."""


class Refusal(NamedTuple):
    """An error answer as it is told."""

    kind: Kind
    said: str
    """Status, reasons and Google's own words."""
    mend: str = ""


def read_refusal(status: int, body: dict[str, Any]) -> Refusal:
    """Tell the kind of an error answer and its mend, whatever its body holds.

    Args:
        status: of HTTP.
        body: the parsed JSON, {} if it was none.
    """
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    entries = [*_objects(error.get("details")), *_objects(error.get("errors"))]
    reasons = list(dict.fromkeys(r for e in entries if isinstance(r := e.get("reason"), str) and r))
    message = str(error.get("message") or "")
    words = f": {message[:300]!r}" if message else ""
    said = f"HTTP {status}, {', '.join(reasons) or 'no reason given'}{words}"
    known = {*reasons, *_reasons_in(message)}
    if known & DAY_REASONS or any(_is_of_a_day(entry) for entry in entries):
        return Refusal("day", said)
    if status in PASSING_CODES or status >= 500 or known & PASSING_REASONS:
        return Refusal("passing", said)
    if error.get("status") in PASSING_STATES:
        return Refusal("passing", said)
    if status in (400, 401, 403) and not reasons:
        known.add("forbidden")
    mend = next((text for reason, text in KEY_MENDS.items() if reason in known), "")
    return Refusal("key" if mend else "other", said, mend)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _reasons_in(message: str) -> set[str]:
    """Of a wrong key Google at times gives no reason but `badRequest`."""
    lower = message.lower()
    if "api key" not in lower:
        return set()
    return {"keyExpired"} if "expired" in lower else {"keyInvalid"} if "valid" in lower else set()


def _is_of_a_day(entry: dict[str, Any]) -> bool:
    """RATE_LIMIT_EXCEEDED is said of a minute's limit and of a day's."""
    metadata = entry.get("metadata")
    limit = metadata.get("quota_limit") if isinstance(metadata, dict) else None
    return isinstance(limit, str) and "perday" in limit.lower()
