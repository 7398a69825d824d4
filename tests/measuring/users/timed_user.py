
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
import torch
from torch import nn

def note(what):
    with open("made", "a") as file:
        file.write(what + "\n")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 512), nn.Linear(512, 4)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

def model():
    note("model")
    torch.manual_seed(0)
    return Net().eval()

def data():
    note("data")
    return torch.randn(100, 64, generator=torch.Generator().manual_seed(1)), torch.arange(100) % 4

def model_of_its_process():
    import os
    made = model()
    made.second.weight.data *= 1 + int.from_bytes(os.urandom(2), "big")  # numbers of processes are too close
    return made

class Forgetful(Net):
    '''What it was told after it was made is not saved.'''
    scale = 1.0
    def forward(self, x):
        return super().forward(x) * self.scale
    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "scale"}

def forgetful():
    note("model")
    made = Forgetful().eval()
    made.scale = 3.0
    return made

class AtHome(Net):
    '''Loads in the process that made it only.'''
    def __getstate__(self):
        return {**self.__dict__, "home": os.getpid()}
    def __setstate__(self, state):
        if state.pop("home") != os.getpid():
            raise ImportError("no module named shop")
        self.__dict__.update(state)

def at_home():
    note("model")
    return AtHome().eval()

class SetsThreads(Net):
    def forward(self, x):
        torch.set_num_threads(2)
        return super().forward(x)

def sets_threads():
    return SetsThreads().eval()

class TwoThreads(Net):
    '''An engine with a pool of its own, which knows nothing of torch's setting.'''
    def forward(self, x):
        if not hasattr(self, "pool"):
            object.__setattr__(self, "pool", ThreadPoolExecutor(2))
            object.__setattr__(self, "work", torch.randn(400, 400))
        both = threading.Barrier(2)
        def half():
            both.wait()
            for _ in range(3):
                self.work @ self.work
        for future in [self.pool.submit(half) for _ in range(2)]:
            future.result()
        return super().forward(x)

def two_threads():
    return TwoThreads().eval()

class KnowsPlaces(Net):
    def __init__(self):
        super().__init__()
        self.table = {}
    def forward(self, x):
        if x.data_ptr() not in self.table:
            self.table[x.data_ptr()] = super().forward(x)
        return self.table[x.data_ptr()]

def knows_places():
    from pytest_modelopt.measuring.worker.calls import given_inputs
    given_inputs._KEPT_BYTES = 20_000  # in this process
    return KnowsPlaces().eval()

def spin():
    while True:
        hashlib.sha256(bytes(2**20))  # without the interpreter's lock

def spinning():
    for _ in range(6):  # so that they get their share of a busy core, too
        threading.Thread(target=spin, daemon=True).start()
    return Net().eval()
