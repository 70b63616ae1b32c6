"""Started alone or by `accelerate launch`: train with either loss, and on all examples in a step; keep each step's
gradients and the names of its examples; stop one run and resume it.

python two_processes.py SETTINGS.json FOLDER PROCESSES
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import distributed

from stepwise_dpo.learning.trainer import StepwiseDPOTrainer
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.training import resume, run

get_grad_norm = StepwiseDPOTrainer._get_grad_norm


def keep_gradients(self, *arguments, **settings):
    if self.accelerator.is_main_process:
        gradients = {
            name: weight.grad.clone() for name, weight in self.model.named_parameters() if weight.grad is not None
        }
        folder = Path(self.args.output_dir, f"gradients-of-{self.accelerator.num_processes}")
        folder.mkdir(exist_ok=True)
        save_file(gradients, folder / f"{self.state.global_step}.safetensors")
        (folder / f"{self.state.global_step}.json").write_text(json.dumps(self.ids_of_step))
    return get_grad_norm(self, *arguments, **settings)


def world_size():
    """How many processes there really are, as the library that connects them says."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def main(settings_file, folder, processes):
    settings = json.loads(Path(settings_file).read_text())
    StepwiseDPOTrainer._get_grad_norm = keep_gradients
    run(make_config(settings), Path(folder, "dpo"))
    assert world_size() == int(processes)
    assert processes == "1" or distributed.get_backend() == "gloo"
    run(make_config(settings, {"loss": "stepwise", "reward_model": "tiny"}), Path(folder, "stepwise"))

    # One step: of all pairs at once, or of a batch of four and one of the pair that is left.
    one_step = {"batch_size": 8, "gradient_accumulation": 1} if processes == "1" else {"gradient_accumulation": 2}
    run(make_config(settings, one_step, {"epochs": 1}), Path(folder, "accumulated"))

    append = RunDirectory.append_metrics

    def stop(self, metrics):
        append(self, metrics)
        if metrics["global_step"] == 1:
            self.request_stop()

    RunDirectory.append_metrics = stop
    run(make_config(settings), Path(folder, "resumed"))
    RunDirectory.append_metrics = append
    resume(Path(folder, "resumed"))


if __name__ == "__main__":
    main(*sys.argv[1:])
