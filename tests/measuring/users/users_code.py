
import os, signal, socket, struct, sys, threading, time
import torch
from torch import nn

def model():
    return nn.Linear(4, 3).eval()

def data():
    return torch.zeros(10, 4), torch.zeros(10, dtype=torch.long)

def killed():
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)

def segfault():
    import ctypes
    ctypes.string_at(0)

def exits():
    sys.exit(3)

def leaves():
    os._exit(7)

def hangs():
    time.sleep(60)

def no_streams():
    sys.stdout = sys.stderr = None
    return model()

def closed_streams():
    sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
    raise RuntimeError("seen all the same")

def forks():
    os.fork()
    return model()

def kills_the_server():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)

def becomes_another_program():
    os.execvp("sleep", ["sleep", "600"])

def closes_all():
    os.closerange(3, 1000)
    return model()

def pipe():
    return [each for each in map(int, os.listdir("/proc/self/fd")) if is_pipe_to_pytest(each)][0]

def is_pipe_to_pytest(number):
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            return found.getpeername() == ""
    except OSError:
        return False

def writes_half_an_answer():
    # And dies, while a process that it has forked keeps the pipe open.
    os.write(pipe(), struct.pack("!i", 4096))
    if os.fork() == 0:
        time.sleep(600)
    os._exit(1)

def stops_to_look():
    breakpoint()

def takes_built_ins_away():
    import builtins
    builtins.print = os.getpid = None
    return model()

def takes_modules_away():
    sys.modules.clear()
    raise ValueError("after that")

def writes_nonsense():
    os.write(pipe(), struct.pack("!i", 4) + b"none")
    return model()

def prints_without_end():
    while True:
        os.write(1, bytes(2**20))

class Untold(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def untold():
    raise Untold

class Fails(nn.Module):
    def forward(self, x):
        raise {"untold": Untold(), "interrupt": KeyboardInterrupt(), "long": ValueError("x" * 10**7)}[self.how]

def fails(how):
    found = Fails()
    found.how = how
    return found.eval()

def untold_in_forward(): return fails("untold")
def interrupts(): return fails("interrupt")
def tells_ten_megabytes(): return fails("long")

class FailsInBatches(nn.Module):
    def forward(self, x):
        if len(x) > 1:
            raise ValueError("out of luck")
        return torch.zeros(len(x), 3)

def fails_in_batches():
    return FailsInBatches().eval()

class EndsInBatches(nn.Module):
    def forward(self, x):
        if len(x) > 1:
            os._exit(255)
        return torch.zeros(len(x), 3)

def ends_in_batches():
    return EndsInBatches().eval()

def chatters():
    print("\x1b[31mred\x1b[0m on stdout")
    print("on stderr", file=sys.stderr)
    os.write(1, b"from C\n")
    raise RuntimeError("no weights")

def environment():
    print(os.environ.get("OMP_WAIT_POLICY"), os.getcwd(), sys.path[0], threading.active_count())
    print(os.environ.get("MPLCONFIGDIR"))
    raise RuntimeError("seen")
