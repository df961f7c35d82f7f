"""What a run needs besides its forward passes, done with torch's own functions alone.

``python -m benchmarks.floor`` imports torch, reads the weights, traces, observes, converts,
lowers, saves and loads again: one image, no evaluation, no gate, no report. Nothing that quantizes
in FX graph mode and judges the saved file can leave out a step of it. `benchmarks.overhead` times
it as a whole process.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from benchmarks.overhead import MODEL


def main() -> None:
    warnings.simplefilter("ignore")  # torch.ao announces its successor
    import torch
    from safetensors.torch import load_file
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    from ptqbench.core.package_data import fixtures_dir
    from ptqbench.models.catalog import MODELS
    from ptqbench.models.meta_init import skeleton

    file = fixtures_dir() / "weights" / f"{MODEL}.safetensors"
    state = {key: value.float() for key, value in load_file(file).items()}
    model = skeleton(MODELS.get(MODEL).factory, len(state["fc.bias"]))
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)
    example = torch.zeros(1, 3, 48, 48)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (example,))
        prepared(example)
        for name, module in (("float32", model), ("int8", convert_fx(prepared))):
            path = str(Path(folder) / f"{name}.pt")
            traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.save(torch.jit.freeze(traced.eval()), path)
            torch.jit.load(path)


if __name__ == "__main__":
    main()
