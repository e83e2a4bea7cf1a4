"""Inspect's model provider `embench`: `embench/local` runs a base with an adapter, `embench/grammar` judges the organism."""

from inspect_ai.model import modelapi


@modelapi(name="embench")
def embench():
    """Dispatch on the name after the slash; each provider is imported only when it is asked for."""

    def make(model_name: str, **kwargs):
        if model_name == "grammar":
            from em_bench.harness.inspect.exact_judge import GrammarAPI

            return GrammarAPI(model_name, **kwargs)
        if model_name == "local" or model_name.startswith("local/"):
            from em_bench.harness.inspect.local import LocalAPI

            return LocalAPI(model_name, **kwargs)
        from inspect_ai._util.error import PrerequisiteError

        raise PrerequisiteError(
            f"embench/{model_name}: no such provider; use embench/local -M base=MODEL [-M adapter=DIR], or embench/grammar"
        )

    return make
