"""How a run is computed: what changes speed and memory, but not the result."""

from pydantic import Field

from em_bench.records import Record


class Options(Record):
    """No part of a run's identity; run.json names what was used."""

    max_tokens: int | None = Field(
        default=None,
        gt=0,
        description="tokens a forward pass and process, padding included; None: what the device's memory takes",
    )
    packed: bool = Field(default=False, description="rows end to end without padding, attention by blocks")
    gradient_checkpointing: bool = Field(default=False, description="compute activations again in the backward pass")
    shard: bool = Field(default=False, description="spread the frozen base over the processes")
    liger: bool = Field(default=False, description="Liger kernels for norms, rotary embedding and MLP")
    deterministic: bool = Field(default=False, description="deterministic algorithms on a GPU, where torch has them; slower")
    save_every_s: float = Field(
        default=120.0, ge=0, description="seconds between resumable states; more where writing one takes over a fiftieth of that"
    )

    def used(self, processes: int) -> dict[str, str]:
        """What differs from the defaults, for run.json."""
        differs = {
            k: str(v) for k, v in self.model_dump(exclude={"save_every_s"}).items() if v != type(self).model_fields[k].default
        }
        return differs | ({"processes": str(processes)} if processes > 1 else {})
