"""Make data/spoken_digits.pt: the digits zero to nine spoken by espeak-ng, as log-mel spectrograms.

Run as `python -m example_project.training.synthesize_speech`; needs the program `espeak-ng` (made with 1.51).

A voice is one of espeak-ng's speaker variants, in one of eight English accents. The variants are shared out among
training, validation and test by name, and so that variants of one family (`steph`, `steph2`, ...) stay together:
nobody in the test set was heard before. Left out are voices that are not meant to sound human or are hard to follow
(whispers, croaks, robots), and second copies of a voice (`caleb` is `klatt`).
"""

import hashlib
import math
import random
import re
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from example_project.speech import DATA_PATH, FRAMES, MEL_BANDS
from example_project.training.saving import save_whole

SEED = 11
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-029",
)
# fmt: off
TRAIN_VOICES = (
    "m1", "m3", "m5", "m6", "m7", "f1", "f3", "f5", "Alex", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Gene2",
    "Henrique", "Jacky", "Marco", "Mario", "Mike", "RicishayMax", "RicishayMax2", "RicishayMax3", "adam", "anika",
    "antonio", "boris", "david", "ed", "edward", "edward2", "grandma", "grandpa", "gustave", "iven", "iven2",
    "iven3", "iven4", "john", "klatt", "klatt2", "klatt3", "marcelo", "max", "michel", "miguel", "norbert", "pablo",
    "rob", "robert", "shelby", "steph", "steph2", "steph3",
)
# fmt: on
VALIDATION_VOICES = ("m4", "linda", "Hugo", "zac", "aunty", "pedro")
# fmt: off
TEST_VOICES = (
    "m2", "m8", "f2", "f4", "Alicia", "Andy", "Lee", "Michael", "Nguyen", "belinda", "benjamin", "paul", "quincy",
    "sandro", "travis", "victor",
)
# fmt: on

WORDS_PER_MINUTE = (130, 220)
PITCH = (25, 75)  # espeak-ng's scale, 0 to 99
ONSET_SECONDS = (0.0, 0.15)
SIGNAL_TO_NOISE_DB = (15.0, 40.0)
LEVEL_DB = (-30.0, -15.0)

SAMPLE_RATE_HZ = 22050
HOP_SAMPLES = 441  # 20 ms
WINDOW_SAMPLES = 512  # 23 ms
LOWEST_HZ, HIGHEST_HZ = 80.0, 8000.0
# Log power is kept in 256 steps between these two, in nepers of power: silence and the loudest vowels.
FEATURE_RANGE = (-12.0, 8.0)


def speak(voice: str, word: str, words_per_minute: int, pitch: int, folder: Path) -> Tensor:
    """The word as espeak-ng says it, [samples] float32 from -1 to 1 at 22,050 Hz, without the silence around it."""
    path = folder / "word.wav"
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "-w", str(path), word]
    subprocess.run(command, check=True)
    with wave.open(str(path)) as recording:
        if recording.getframerate() != SAMPLE_RATE_HZ:
            raise RuntimeError(f"{voice} speaks at {recording.getframerate()} Hz, not at {SAMPLE_RATE_HZ} Hz")
        samples = torch.frombuffer(bytearray(recording.readframes(recording.getnframes())), dtype=torch.int16)
    sound = samples.float() / 32768
    audible = (sound.abs() > 0.01).nonzero()
    return sound[int(audible[0]) : int(audible[-1]) + 1]


def place(sound: Tensor, dice: random.Random, noise: torch.Generator) -> Tensor:
    """The word at a random moment, level and signal-to-noise ratio in a window of fixed length, [samples] float32."""
    length = (FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
    onset = int(dice.uniform(*ONSET_SECONDS) * SAMPLE_RATE_HZ)
    window = torch.zeros(length)
    sound = sound[: length - onset]
    loudness = sound.square().mean().sqrt()
    window[onset : onset + len(sound)] = sound / loudness
    window += torch.randn(length, generator=noise) * 10 ** (-dice.uniform(*SIGNAL_TO_NOISE_DB) / 20)
    return window * 10 ** (dice.uniform(*LEVEL_DB) / 20)


def mel_filters() -> Tensor:
    """Triangular filters [bands, bins] equally spaced in mel = 2595 log10(1 + f/700) (O'Shaughnessy, 1987)."""
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * (10 ** (torch.linspace(lowest, highest, MEL_BANDS + 2) / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0)


def log_mel(sound: Tensor, filters: Tensor) -> Tensor:
    """The natural logarithm of the power in each mel band, [bands, frames] float32."""
    window = torch.hann_window(WINDOW_SAMPLES)
    spectrum = torch.stft(
        sound, WINDOW_SAMPLES, HOP_SAMPLES, window=window, center=False, onesided=True, return_complex=True
    )
    return (filters @ spectrum.abs().square()).clamp_min(1e-10).log()


def check_voices(folder: Path) -> None:
    """Raise if two variants sound the same: espeak-ng falls back silently on a variant that it does not have."""
    heard: dict[str, str] = {}
    for variant in ("", *TRAIN_VOICES, *VALIDATION_VOICES, *TEST_VOICES):
        sound = speak(f"en-us+{variant}" if variant else "en-us", "seven", 175, 50, folder)
        fingerprint = hashlib.sha256(bytes(sound.view(torch.uint8).tolist())).hexdigest()
        if fingerprint in heard:
            raise RuntimeError(
                f"espeak-ng has no voice of its own for {variant!r}: it sounds like {heard[fingerprint]!r}"
            )
        heard[fingerprint] = variant


def make_part(voices: Sequence[str], takes: int, seed: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Every voice says every digit `takes` times: features [n, bands, frames] uint8 and digits [n] uint8."""
    dice = random.Random(seed)
    noise = torch.Generator().manual_seed(seed)
    filters = mel_filters()
    bottom, top = FEATURE_RANGE
    features, labels = [], []
    for voice in voices:
        for digit, word in enumerate(WORDS):
            for _ in range(takes):
                speaker = f"{dice.choice(ACCENTS)}+{voice}"
                sound = speak(speaker, word, dice.randint(*WORDS_PER_MINUTE), dice.randint(*PITCH), folder)
                spectrogram = log_mel(place(sound, dice, noise), filters)
                steps = (spectrogram - bottom) / (top - bottom) * 255
                features.append(steps.round().clamp(0, 255).to(torch.uint8))
                labels.append(digit)
    return torch.stack(features), torch.tensor(labels, dtype=torch.uint8)


def espeak_version() -> str:
    """The version that espeak-ng prints, such as `1.51`; other versions make slightly different speech."""
    printed = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", printed)
    return found.group() if found else printed.strip()


def main() -> None:
    """Synthesize the three parts in a temporary folder and save their features."""
    torch.set_num_threads(1)
    bottom, top = FEATURE_RANGE
    content: dict[str, object] = {
        "scale": (top - bottom) / 255,
        "offset": bottom,
        "words": list(WORDS),
        "accents": list(ACCENTS),
        "espeak_ng_version": espeak_version(),
    }
    parts = (("train", TRAIN_VOICES, 5), ("validation", VALIDATION_VOICES, 4), ("test", TEST_VOICES, 5))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_voices(folder)
        for offset, (part, voices, takes) in enumerate(parts):
            features, labels = make_part(voices, takes, SEED + offset, folder)
            content |= {f"{part}_features": features, f"{part}_labels": labels, f"{part}_voices": list(voices)}
            print(f"{part}: {len(labels)} utterances by {len(voices)} voices, features {tuple(features.shape)}")
    save_whole(content, DATA_PATH)
    print(f"{DATA_PATH}: {DATA_PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
