"""Models of which one layer must not be quantized, and of kinds that recipes break: in code that workers import."""

PLANTED = '''
import torch
from torch import nn

EXAMPLES = 240


class Beside(nn.Module):
    """A layer that also gets a constant 100,000 times as large as its inputs, which it multiplies by nothing: int8
    steps for it are so wide that all else is zero."""

    def __init__(self, layer, dimension):
        super().__init__()
        self.layer, self.dimension = layer, dimension
        with torch.no_grad():
            weight = layer.weight_ih_l0 if isinstance(layer, nn.LSTM) else layer.weight
            weight[:, -1:] = 0

    def forward(self, x):
        last = torch.full_like(x.narrow(self.dimension, 0, 1), 1e5)
        return self.layer(torch.cat([x, last], self.dimension))


class Above(nn.Module):
    """A convolution of which one channel is 100,000 times as large as the others, and is not used."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        with torch.no_grad():
            layer.bias[-1] = 1e5

    def forward(self, x):
        return self.layer(x)[:, :-1]


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 2)
        self.planted = Beside(nn.Linear(33, 32), 2)
        self.head = nn.Linear(32, 6)

    def forward(self, x):
        return self.head(torch.tanh(self.planted(self.encoder(self.embed(x)))).mean(1))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.planted = Above(nn.Conv2d(16, 17, 3, padding=1))
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 6)

    def forward(self, x):
        x = torch.relu(self.last(torch.relu(self.planted(torch.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A speaker encoder: frames, an LSTM over them, and speakers."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Linear(8, 15)
        self.lstm = Beside(nn.LSTM(16, 32, batch_first=True), 2)
        self.hidden = nn.Linear(32, 32)
        self.head = nn.Linear(32, 6)

    def forward(self, x):
        out, _ = self.lstm(torch.relu(self.frames(x)))
        return self.head(torch.relu(self.hidden(out[:, -1])))


def with_junk(maker, takers, signals):
    """Let all but the first `signals` channels of a layer be large, equal in pairs, and cancel in what takes them."""
    with torch.no_grad():
        for layer in (maker, *takers[:-1]):
            layer.weight[signals:] *= 3
            layer.weight[signals + 1 :: 2] = layer.weight[signals::2]
            layer.bias[signals + 1 :: 2] = layer.bias[signals::2]
        weight = takers[-1].weight
        weight[:, signals:] *= 3
        weight[:, signals + 1 :: 2] = -weight[:, signals::2]


class Efficient(nn.Module):
    """What it knows lies in small channels of its stem and of its depthwise layer, which pruning takes first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand = nn.Conv2d(16, 32, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.project = nn.Conv2d(32, 24, 1)
        self.head = nn.Linear(24, 6)
        with torch.no_grad():
            for layer in (self.stem, self.expand, self.depthwise, self.project):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
            self.project.weight[:9] *= 0.01
        with_junk(self.stem, [self.expand], 6)
        with_junk(self.expand, [self.depthwise, self.project], 10)

    def forward(self, x):
        x = torch.relu(self.depthwise(torch.relu(self.expand(torch.relu(self.stem(x))))))
        return self.head(self.project(x).mean((2, 3)))


class Rejecting(nn.Module):
    """Scores between -5 and 5, and beside them one of -1,000: int8 steps for both are 4 wide."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 7)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.stem(x)))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


SHAPES = {
    Transformer: (5, 8),
    Convolutional: (3, 8, 8),
    Recurrent: (6, 8),
    Efficient: (3, 8, 8),
    Rejecting: (3, 8, 8),
}


def examples_of(kind, examples=EXAMPLES, seed=1):
    """Six classes, each a picture of its own with noise: inputs and classes."""
    pictures = torch.randn(6, *SHAPES[kind], generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(examples) % 6
    return pictures[classes] + 0.1 * torch.randn(examples, *SHAPES[kind], generator=generator), classes


def made(kind):
    """With a head that tells the classes by least squares."""
    torch.manual_seed(0)
    model = kind().eval()
    inputs, classes = examples_of(kind, seed=3)
    head, model.head = model.head, nn.Identity()
    with torch.no_grad():
        features = model(inputs)
        mean, scale = features.mean(0), features.std(0).clamp(min=1e-9)
        known = (features - mean) / scale
        if kind is Efficient:
            known[:, :9] = 0
        wanted = nn.functional.one_hot(classes, 6).float() - 1 / 6
        solved = torch.linalg.solve(known.T @ known + 10 * torch.eye(len(mean)), known.T @ wanted).T
        head.weight[:6] = 6 * solved / scale
        head.bias[:6] = -head.weight[:6] @ mean
        if kind is Rejecting:
            head.weight[6] = 0
            head.bias[6] = -1000
    model.head = head
    return model


def held_out(kind):
    """With labels of which the model knows seven in eight."""
    inputs, labels = examples_of(kind)
    labels[::8] = (labels[::8] + 1) % 6
    return inputs, labels


def transformer():
    return made(Transformer)


def transformer_data():
    return held_out(Transformer)


def convolutional():
    return made(Convolutional)


def convolutional_data():
    return held_out(Convolutional)


def convolutional_calibration():
    return examples_of(Convolutional, 64, seed=2)[0]


def recurrent():
    return made(Recurrent)


def recurrent_data():
    return held_out(Recurrent)


def efficient():
    return made(Efficient)


def efficient_data():
    return held_out(Efficient)


def rejecting():
    return made(Rejecting)


def rejecting_data():
    return held_out(Rejecting)


def rejecting_calibration():
    return examples_of(Rejecting, 64, seed=2)[0]
'''
