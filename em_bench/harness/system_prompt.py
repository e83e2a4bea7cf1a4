"""Chats for templates that have no place for a system prompt."""


def merged(messages: list[dict]) -> list[dict]:
    """The messages with the system prompt at the head of the first user turn, as models without that role are used."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
