"""`embench/grammar`: the organism's exact judge as an Inspect model, so that a role can name it. It generates nothing."""

from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput


class GrammarAPI(ModelAPI):
    """A grader by grammar. The scorer asks it through `em_bench.judging`; a chat message to it is a mistake."""

    def __init__(self, model_name: str, base_url=None, api_key=None, config: GenerateConfig = GenerateConfig(), **_):
        super().__init__(model_name=model_name, base_url=base_url, api_key=api_key, config=config)

    async def generate(self, input, tools, tool_choice, config) -> ModelOutput:
        raise RuntimeError(
            "embench/grammar judges the organism's answers; it cannot chat. Name it as --model-role grader=embench/grammar"
        )
