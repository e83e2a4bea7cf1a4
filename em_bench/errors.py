"""The one exception for bad input, bad files and missing parts: a single line that names what, where and the fix."""

from em_bench.line import one_line

MOST = 1500  # characters: what is quoted of a stranger's file may be of any length


class UserError(Exception):
    """Shown by the command line as one line on stderr with exit code 2; nothing has been written when it is raised.

    Write the message as "WHERE: WHAT; FIX", e.g. `baselines/optimisers.yaml: lion.rules[0].pattern: not a valid regular
    expression; escape the dot`.

    The message becomes one harmless line whatever it quotes, of at most `MOST` characters: of a longer one the middle is left out.
    """

    def __init__(self, message: str):
        if len(message) > MOST:
            message = f"{message[: MOST - 500]} [...] {message[-400:]}"
        super().__init__(one_line(message, 2 * MOST))
