"""What a cell's result says of its adapter's spectrum by projection and by depth."""

import torch
from safetensors.torch import save_file

from em_bench.adapter_file import load_adapter
from em_bench.spectral import layer_spectra, lora_pairs
from em_bench.sweep.evaluating import spectral_groups


def test_groups_hold_the_layers_of_their_projection_and_depth(tmp_path):
    tensors = {}
    for layer, (q, v) in enumerate([(1.0, 1.0), (4.0, 0.0)]):
        for name, second in (("q_proj", q), ("v_proj", v)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.eye(2, 5)
            tensors[f"{stem}.lora_B.weight"] = (
                torch.diag(torch.tensor([4.0, second])) if name == "q_proj" or layer == 0 else torch.zeros(2, 2)
            )
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    groups = spectral_groups(layer_spectra(lora_pairs(load_adapter(tmp_path))))
    assert set(groups) == {"q_proj", "v_proj", "layer 0", "layer 1"}
    assert {name: g.layers for name, g in groups.items()} == {"q_proj": 2, "v_proj": 1, "layer 0": 2, "layer 1": 1}
    one_direction = 1 + 1 / 16  # singular values 4 and 1: sum of squares over the largest square
    assert abs(groups["layer 0"].stable_rank - one_direction) < 1e-6
    assert abs(groups["layer 1"].stable_rank - 2) < 1e-6  # 4 and 4
    assert abs(groups["q_proj"].stable_rank - (one_direction + 2) / 2) < 1e-6
