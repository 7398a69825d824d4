"""Train the student of digits-vit further for weights of 2 bits, and write weights/digits_quantized.pt.

Run as `python -m example_project.training.train_quantized`; takes a minute or two on one core and needs torchao. Its
linear layers round weights and activations while they learn (quantization-aware training), and are then converted to
what torchao runs. torchao keeps each weight of 2 bits in a byte, and attention's own weights stay in float32. The
held-out part is only looked at to print accuracies at the end.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
from torchao.quantization.granularity import PerAxis
from torchao.quantization.qat import QATConfig

from example_project.training.saving import accuracy, save_whole
from example_project.training.train_vision import distort
from example_project.vision import QUANTIZED_PATH, load_model, load_student, test_data, train_data

SEED = 13
EPOCHS = 30
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
TEMPERATURE = 2.0
ROUNDING = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int2, weight_granularity=PerAxis(0))
"""Weights of 2 bits with a scale for each output, activations of 8 bits with a scale for each patch."""


def trained(teacher: nn.Module, images: Tensor) -> nn.Module:
    """The student, trained on images [n, 1, 8, 8] for a fixed number of epochs; no choice is made along the way."""
    torch.manual_seed(SEED)
    model = load_student()
    quantize_(model, QATConfig(ROUNDING, step="prepare"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    steps = EPOCHS * math.ceil(len(images) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH_SIZE):
            batch = distort(images[rows])
            with torch.no_grad():
                taught = functional.log_softmax(teacher(batch) / TEMPERATURE, dim=1)
            own = functional.log_softmax(model(batch) / TEMPERATURE, dim=1)
            loss = functional.kl_div(own, taught, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    quantize_(model, QATConfig(ROUNDING, step="convert"))
    return model.eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = trained(load_model(), train_data()[0])
    save_whole(model.state_dict(), QUANTIZED_PATH)
    untrained = load_student()
    quantize_(untrained, ROUNDING)
    print(f"accuracy on the held-out part: {accuracy(model, *test_data()):.4f}")
    print(f"of the student with the same bits and no training for them: {accuracy(untrained, *test_data()):.4f}")


if __name__ == "__main__":
    main()
