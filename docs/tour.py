# %% [markdown]
# A network of your own, from training to a guarded detector, in ten cells.
#
#     python docs/tour.py          # in a checkout; half a minute on a CPU
#
# An editor that knows `# %%` (VS Code, PyCharm, Spyder, jupytext) runs it cell by cell.
# It writes to `outputs/tour`.

# %% 1. The network: tour_network.py holds a plain PyTorch module
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from tour_network import Net

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed
from progip.config.composing import resolved
from progip.datasets.digits import Digits

torch.manual_seed(0)
here, outputs = Path(__file__).parent, Path("outputs")

# %% 2. Data: handwritten digits 0 to 7; 8 and 9 will be what the network does not know
digits = Digits(name="digits")
unseen = Digits(name="unseen", classes=2, digits=[8, 9], train_size=0)
train, test = digits.split("train"), digits.split("evaluation")
images, labels = train.tensor(digits.mean, digits.std), torch.from_numpy(train.labels)

# %% 3. Training, as you always do it
network = Net(channels=1, classes=8)
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(20):
    for part in torch.randperm(len(images)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[part]), labels[part]).backward()
        optimiser.step()
network.eval().requires_grad_(False)
right = network(test.tensor(digits.mean, digits.std)).argmax(1) == torch.from_numpy(test.labels)
print(f"accuracy on {len(right)} test images: {right.float().mean():.1%}")

# %% 4. Keep the weights where a campaign finds them
weights = outputs / "tour" / "net.safetensors"
weights.parent.mkdir(parents=True, exist_ok=True)
save_file(network.state_dict(), weights)

# %% 5. A campaign: one flipped bit a run, in every pass of an ODIN detector, ProGIP watching
choices = [
    "model._target_=tour_network.TourModel", "model.name=tour", f"model.weights={weights}",
    "model.channels=1", f"outputs={outputs}", "name=tour", "runs=2000", "threads=1",
    "protection=progip",
]  # fmt: skip
for fault_pass in ("first_forward", "backward", "second_forward"):
    for population in ("id", "ood"):
        configuration = composed(
            [*choices, f"pass={fault_pass}", f"population={population}"], here.parent / "conf"
        )
        run_cell(cell_settings(configuration), resolved(configuration))

# %% 6. How often it fails, with intervals, and what ProGIP leaves of that
from progip.analysis.estimates import summarise, with_unprotected
from progip.report import Campaign, figures

campaign = Campaign.load(outputs / "tour")
rates = summarise(with_unprotected(campaign.cells), ["fault_pass", "population", "protection"])
rate = ["failure_rate", "failure_rate_low", "failure_rate_high", "failure_rate_n"]
print(rates[["fault_pass", "population", "protection", *rate]].to_string(index=False))

# %% 7. Where: the map of layers and bits
(vulnerable,) = figures.vulnerability(
    campaign, ("digits", "digits_unseen", "single_bit_flip", "fp32", "all")
)
worst = vulnerable.data.sort_values("low", ascending=False).head(5)
print(
    worst[["fault_pass", "layer", "bit", "failures", "correct", "low", "high"]].to_string(
        index=False
    )
)
vulnerable.write(outputs / "tour")  # vulnerability.svg, .pdf, .png and .csv

# %% 8. The same detector with its guard, for use
from progip.deploy.calibration import guarded_detector
from progip.ood_methods.odin import ODIN
from progip.protections.progip import ProGIP

known = digits.split("calibration").tensor(digits.mean, digits.std)
unknown = unseen.split("calibration").tensor(digits.mean, digits.std)
detector = guarded_detector(
    network, ODIN(name="odin", std=digits.std), ProGIP(name="progip"),
    train=list(zip(images.split(64), labels.split(64), strict=True)),
    id_images=known, ood_images=unknown,
)  # fmt: skip
answer = detector(known[:32])
print(f"without a fault: {int(answer.alarm.sum())} alarms in {len(answer.alarm)} images")


# %% 9. A fault: bit 30 of one value of the second convolution, in every image
def flip(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output.view(torch.int32)[:, 5, 3, 3] ^= 1 << 30
    return output


before = detector(known[:32])
handle = network.features[3].register_forward_hook(flip)
after = detector(known[:32])
handle.remove()
wrong = (after.label != before.label) | (after.in_distribution != before.in_distribution)
print(f"with it: {wrong.sum()} other answers, {(wrong & after.alarm).sum()} of them with an alarm")

# %% 10. Keep the guarded detector
from progip.deploy.saving import save_detector

save_detector(detector, outputs / "tour" / "guarded.safetensors")
print(f"{outputs / 'tour'}: rows, map and detector; python -m progip report {outputs / 'tour'}")
