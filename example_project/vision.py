"""digits-vit: a Transformer that reads handwritten digits of 8x8 pixels."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
DATA_PATH = HERE / "data" / "digits.pt"
WEIGHTS_PATH = HERE / "weights" / "digits_vit.pt"
STUDENT_PATH = HERE / "weights" / "digits_student.pt"
QUANTIZED_PATH = HERE / "weights" / "digits_quantized.pt"
ONNX_PATH = HERE / "weights" / "digits_student.onnx"

IMAGE_SIZE = 8
PATCH_SIZE = 2
CLASSES = 10
DARKEST = 16  # the data set counts ink in 4x4 blocks of the scanned bitmap, 0 to 16


class DigitsViT(nn.Module):
    """A pre-norm Transformer encoder over the sixteen 2x2 patches of an image, averaged into one vector.

    Most of the 2.2 million weights sit in the feed-forward layers, which are wide on purpose: these are the
    matrices that weight quantization and structured pruning act on.
    """

    def __init__(self, width: int = 128, feedforward: int = 4096, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        patches = (IMAGE_SIZE // PATCH_SIZE) ** 2
        self.patch_embedding = nn.Linear(PATCH_SIZE**2, width)
        self.position = nn.Parameter(0.2 * torch.randn(1, patches, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout=0.1, activation="relu", batch_first=True, norm_first=True
        )
        # Nested tensors serve padded batches, and exist for post-norm layers only: off, or PyTorch warns.
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images [batch, 1, 8, 8] with ink from 0 to 1; gives logits [batch, 10]."""
        patches = functional.unfold(images, PATCH_SIZE, stride=PATCH_SIZE).transpose(1, 2)
        tokens = self.encoder(self.patch_embedding(patches) + self.position)
        logits: Tensor = self.classifier(tokens.mean(dim=1))
        return logits


def load_model() -> nn.Module:
    """The trained model in float32 and eval mode (its weights are stored in float16)."""
    model = DigitsViT()
    model.load_state_dict(torch.load(WEIGHTS_PATH, weights_only=True))
    return model.eval()


def make_student() -> DigitsViT:
    """A student of digits-vit, untrained: half as wide, with a sixteenth of its feed-forward units."""
    return DigitsViT(width=64, feedforward=256)


def load_student() -> nn.Module:
    """The model that was distilled from the trained one, in float32 and eval mode (stored in float16)."""
    model = make_student()
    model.load_state_dict(torch.load(STUDENT_PATH, weights_only=True))
    return model.eval()


def load_quantized() -> nn.Module:
    """The student after training for weights of 2 bits, which torchao runs: without it they cannot be loaded."""
    import torchao.quantization  # noqa: F401 -- makes its tensors known to torch.load

    model = make_student()
    model.load_state_dict(torch.load(QUANTIZED_PATH, weights_only=True), assign=True)
    return model.eval()


def test_data() -> tuple[Tensor, Tensor]:
    """The held-out quarter: images [450, 1, 8, 8] float32 from 0 to 1, digits [450] int64."""
    return _part("test_indices")


def train_data() -> tuple[Tensor, Tensor]:
    """The part trained on: images [1347, 1, 8, 8] float32 from 0 to 1, digits [1347] int64."""
    return _part("train_indices")


def _part(indices: str) -> tuple[Tensor, Tensor]:
    data = torch.load(DATA_PATH, weights_only=True)
    rows = data[indices]
    return data["images"][rows].unsqueeze(1).float() / DARKEST, data["labels"][rows].long()
