"""spoken-digits: a convolutional-recurrent network that recognizes the spoken digits zero to nine."""

from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
DATA_PATH = HERE / "data" / "spoken_digits.pt"
WEIGHTS_PATH = HERE / "weights" / "spoken_digits.pt"

MEL_BANDS = 32
FRAMES = 48  # of 20 ms
CLASSES = 10


class SpokenDigits(nn.Module):
    """Two convolutions over time, a GRU that holds most of the 1.1 million weights, and a small classifier."""

    def __init__(self, channels: int = 128, hidden: int = 512) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm1d(MEL_BANDS)
        self.convolutions = nn.Sequential(
            nn.Conv1d(MEL_BANDS, 96, kernel_size=5, padding=2, bias=False),
            nn.BatchNorm1d(96),
            nn.ReLU(),
            nn.Conv1d(96, channels, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        )
        self.recurrent = nn.GRU(channels, hidden, batch_first=True)
        self.classifier = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(hidden, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, CLASSES)
        )

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Log-mel spectrograms [batch, 32 bands, 48 frames of 20 ms]; gives logits [batch, 10]."""
        features = self.convolutions(self.input_norm(spectrograms))
        states, _ = self.recurrent(features.transpose(1, 2))
        # The mean over time, because words end long before the fixed window does.
        logits: Tensor = self.classifier(states.mean(dim=1))
        return logits


def load_model() -> nn.Module:
    """The trained model in float32 and eval mode (its weights are stored in float16)."""
    model = SpokenDigits()
    model.load_state_dict(torch.load(WEIGHTS_PATH, weights_only=True))
    return model.eval()


def test_data() -> tuple[Tensor, Tensor]:
    """Voices never heard in training: log-mel spectrograms [800, 32, 48] float32, digits [800] int64."""
    return _part("test")


def validation_data() -> tuple[Tensor, Tensor]:
    """Voices used to choose the training epoch: log-mel spectrograms [240, 32, 48] float32, digits [240] int64."""
    return _part("validation")


def train_data() -> tuple[Tensor, Tensor]:
    """The voices trained on: log-mel spectrograms [2700, 32, 48] float32, digits [2700] int64."""
    return _part("train")


def _part(part: str) -> tuple[Tensor, Tensor]:
    data = torch.load(DATA_PATH, weights_only=True)
    features = data[f"{part}_features"].float() * data["scale"] + data["offset"]
    return features, data[f"{part}_labels"].long()
