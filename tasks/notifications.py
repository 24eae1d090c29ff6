"""Tell somebody outside: a webhook on promotion, rejection and failure."""

from typing import TYPE_CHECKING, Any

import requests
from prefect.logging import get_logger

from thumbtune.channel.secrets import MissingSecretError, read_secret
from thumbtune.text.escaping import for_discord, for_slack

if TYPE_CHECKING:
    from thumbtune.learning.promotion import Verdict

TIMEOUT = 10  # seconds

logger = get_logger("thumbtune")


def notify(text: str, channel: str = "", **fields: Any) -> None:
    """Post a message to the webhook, if one is set; a webhook that fails only gets a warning.

    Slack and Mattermost read `text`, Discord `content`; whatever a title or a server's answer says
    in it, nobody is mentioned. The fields are for programs. The address is a secret,
    THUMBTUNE_WEBHOOK_URL, since whoever has it may post.

    Args:
        channel: as whoever set up the run calls it.
    """
    try:
        url = read_secret("THUMBTUNE_WEBHOOK_URL")
    except MissingSecretError:
        return
    try:
        message = {
            "text": for_slack(text, own=channel),
            "content": for_discord(text),
            "allowed_mentions": {"parse": []},
        }
        answer = requests.post(url, json={**message, **fields}, timeout=TIMEOUT)
        if not answer.ok:
            logger.warning(
                "The webhook answered HTTP %d; it was told: %s", answer.status_code, text
            )
    except (requests.RequestException, ValueError) as error:
        logger.warning("The webhook failed (%s); it was told: %s", type(error).__name__, text)


def notify_verdict(channel: str, verdict: "Verdict") -> None:
    """Tell what became of a new version; one that was decided on before is no news."""
    if verdict.is_new:
        became = "promoted" if verdict.promoted else "kept"
        text = f"thumbtune: {channel}: version {verdict.version} {verdict.why}"
        told = verdict.model_dump(include={"version", "champion"})
        notify(text, channel, event=f"model.{became}", **told)


def notify_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """A flow's `on_failure` and `on_crashed` hook."""
    channel = str(flow_run.parameters.get("channel") or flow_run.parameters.get("source"))
    text = f"thumbtune: {flow.name} of {channel} {state.name.lower()}: {state.message}"
    notify(text, channel, event=f"{flow.name}.{state.name.lower()}", flow_run=str(flow_run.id))
