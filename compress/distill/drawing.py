"""What the student of a drawing model minimises: a step of diffusion, at noise that is drawn anew each time.

The data's own noisy images, one a row, are what calibration sees; a student that met no others would learn
them by heart. For diffusion alone: generators that draw at once have no step to compare.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.finetune import taught
from models.objectives import forward
from models.training import Batch, Objective
from runtime.drawing import signal
from runtime.manifest import Diffusion


def velocity_objective(teacher: nn.Module, diffusion: Diffusion, alpha: float) -> Objective:
    """alpha of the squared error to the true velocity, and 1 - alpha of that to the teacher's.

    Both at the same noisy image, each row's at a random time; `targets` float32 [batch, 1, height, width].
    """
    kept = [signal(time, diffusion) ** 0.5 for time in range(diffusion.timesteps + 1)]

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        images, noise = batch["targets"], torch.randn_like(batch["noise"])
        timestep = torch.randint(1, diffusion.timesteps + 1, (len(images),), device=images.device)
        image_share = images.new_tensor(kept)[timestep].view(-1, 1, 1, 1)
        noise_share = (1 - image_share.square()).sqrt()
        noisy = batch | {"noise": image_share * images + noise_share * noise, "timestep": timestep}
        velocity = forward(module, noisy)
        true = image_share * noise - noise_share * images
        wanted = taught(teacher, noisy).to(velocity.dtype)
        return alpha * F.mse_loss(velocity, true) + (1 - alpha) * F.mse_loss(velocity, wanted)

    return loss
