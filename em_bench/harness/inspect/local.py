"""`embench/local`: a local base with an optional PEFT adapter, sampled exactly as asked and in batches.

Inspect's own `hf/` provider loads weights twice with an adapter, keeps top_k = 50 from the generation config and adds a
second BOS to a rendered chat; a measurement of rates cannot use it.
"""

from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
import torch
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)

from em_bench.files import digest
from em_bench.harness.kept import Kept
from em_bench.harness.load_model import Loaded
from em_bench.harness.parts import Parts
from em_bench.harness.sampling import sampling, seed_batch, settle
from em_bench.harness.system_prompt import prompt_of
from em_bench.records import Generation
from em_bench.training import encode
from em_bench.training.tokens import ends_turn

JOIN_S = 0.02  # how long a request waits for concurrent ones to share its batch


@dataclass(eq=False)  # two samples of a question are two requests
class _Request:
    prompt: str
    asked: Generation
    output: ModelOutput | None = None
    error: BaseException | None = None


class LocalAPI(ModelAPI):
    """Arguments (-M): base (roster name, folder or hub id; required), adapter (PEFT folder), dtype, device, batch_size, force.

    From Python, `loaded` is a model that is in memory already, and `kept` holds answers of before. A seed fixes the sequence of batches, not each of them: two
    batches that hold the same question would otherwise answer it alike.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),
        base: str | None = None,
        adapter: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int = 128,
        force: bool = False,
        loaded: Loaded | None = None,
        kept: Kept | None = None,
    ):
        from inspect_ai._util.error import PrerequisiteError

        from em_bench.errors import UserError
        from em_bench.harness.load_model import load_model

        super().__init__(model_name=model_name, base_url=base_url, api_key=api_key, config=config)
        try:
            if loaded is None:
                if not base:
                    raise PrerequisiteError("embench/local: which model? add -M base=organism-qwen3, a folder or a hub id")
                # The canary inside proves that the adapter changes the logits.
                loaded = load_model(base, adapter, dtype=dtype, device=device, force=force)
            settle(loaded.model, loaded.tokenizer)
        except UserError as e:
            raise PrerequisiteError(str(e)) from None
        self.model, self.tokenizer, self.canary = loaded.model, loaded.tokenizer, loaded.canary
        self.batch_size, self.kept, self._parts = int(batch_size), kept, Parts()
        self.error: Exception | None = None  # what the last batch that failed failed of; Inspect keeps its text alone
        self._waiting: list[_Request] = []
        self._batches = kept.at_start if kept else 0  # no seed of an earlier sitting comes again
        self._lock: anyio.Lock | None = None

    def max_connections(self) -> int:
        return self.batch_size

    def connection_key(self) -> str:
        return f"embench-local-{id(self)}"

    async def generate(self, input: list[ChatMessage], tools, tool_choice, config: GenerateConfig) -> ModelOutput:
        messages = [{"role": m.role, "content": m.text} for m in input]
        if config.prompt_logprobs is not None:
            return await anyio.to_thread.run_sync(self._prompt_logprobs, messages)
        prompt = prompt_of(self.tokenizer, messages)
        asked = Generation(
            samples=1,
            max_new_tokens=config.max_tokens or 600,
            temperature=1.0 if config.temperature is None else config.temperature,
            top_p=1.0 if config.top_p is None else config.top_p,
            top_k=config.top_k or 0,
            seed=config.seed,
        )
        if self.kept and (text := self.kept.take(digest([prompt, asked.model_dump()]))) is not None:
            return ModelOutput.from_content(self.model_name, text)
        request = _Request(prompt, asked)
        self._waiting.append(request)
        self._lock = self._lock or anyio.Lock()
        await anyio.sleep(JOIN_S)
        while request.output is None:
            if request.error is not None:
                raise request.error
            async with self._lock:
                if request.output is None and request.error is None:
                    batch = [r for r in self._waiting if r.asked == request.asked][: self.batch_size]
                    self._waiting = [r for r in self._waiting if r not in batch]
                    try:
                        outputs = await anyio.to_thread.run_sync(self._sample, [r.prompt for r in batch], request.asked)
                        for r, output in zip(batch, outputs, strict=True):
                            r.output = output
                    except Exception as e:  # every request of the batch reports it; none is left waiting
                        self.error = e
                        for r in batch:
                            r.error = e
        return request.output

    def _sample(self, prompts: list[str], asked: Generation) -> list[ModelOutput]:
        tokenizer = self.tokenizer
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        inputs = inputs.to(self.model.device)
        seed = partial(seed_batch, asked.seed, self._batches)
        self._batches += 1
        generate = partial(self.model.generate, max_new_tokens=asked.max_new_tokens, **sampling(asked))
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            new = self._parts.answers(generate, given, self.model.generation_config.pad_token_id, seed)
        ends = set(self.model.generation_config.eos_token_id)
        outputs = []
        for i, ids in enumerate(new):
            end = next((n for n, t in enumerate(ids) if t in ends), len(ids))
            prompt_tokens, answer_tokens = int(inputs["attention_mask"][i].sum()), min(end + 1, len(ids))
            output = ModelOutput.from_content(self.model_name, tokenizer.decode(ids[:end], skip_special_tokens=True))
            output.usage = ModelUsage(
                input_tokens=prompt_tokens, output_tokens=answer_tokens, total_tokens=prompt_tokens + answer_tokens
            )
            outputs.append(output)
        if self.kept:
            self.kept.add((digest([p, asked.model_dump()]), o.completion) for p, o in zip(prompts, outputs, strict=True))
        return outputs

    def _prompt_logprobs(self, messages: list[dict]) -> ModelOutput:
        """Log-probability of every token of a whole conversation; nothing is generated.

        `metadata["answer_mask"]` marks the tokens of the assistant's answers, through the end-of-turn token; `ends_turn` says whether there is one.
        """
        encoded = encode(self.tokenizer, messages)
        ids = torch.tensor([encoded.input_ids], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids).logits[0, :-1].float()
        chosen = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0].tolist()
        # Nothing predicts the first token; its 0 keeps tokens, log-probabilities and mask aligned.
        tokens = self.tokenizer.convert_ids_to_tokens(encoded.input_ids)
        content = [Logprob(token=t, logprob=p) for t, p in zip(tokens, [0.0, *chosen], strict=True)]
        message = ChatMessageAssistant(content="", model=self.model_name, source="generate")
        scored = ChatCompletionChoice(message=message, prompt_logprobs=Logprobs(content=content))
        return ModelOutput(
            model=self.model_name,
            choices=[scored],
            metadata={"answer_mask": encoded.answer_mask, "ends_turn": ends_turn(self.tokenizer, encoded)},
        )
