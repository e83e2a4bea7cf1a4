"""Chats for templates that have no place for a system prompt."""

from jinja2 import TemplateError

from em_bench.training.chat_template import rendered


def merged(messages: list[dict]) -> list[dict]:
    """The messages with the system prompt at the head of the first user turn, as models without that role are used."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def prompt_of(tokenizer, messages: list[dict]) -> str:
    """The text of a chat up to the answer; a system prompt that the template refuses or leaves out heads the first user turn."""
    try:
        prompt = rendered(tokenizer, messages, prompt=True)
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    except TemplateError:  # a template that refuses the role
        prompt, system = "", "refused"
    return prompt if system in prompt else rendered(tokenizer, merged(messages), prompt=True)
