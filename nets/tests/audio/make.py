#!/usr/bin/env python3
"""Writes golden.safetensors: two clips in f32, and in f64 what the front ends make of them.

    python3 make.py             # needs numpy
    python3 make.py --compare   # also compares with torchaudio's own functions

All of it is numpy, from the formulas. Largest differences from torch 2.8 and torchaudio 2.8:

            in f64    in f32, as published codes run
DyMN        3.6e-13   8.9e-5
FDY-CRNN    9.5e-15   5.0e-6
"""

import json
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).with_name("golden.safetensors")
SECONDS = 0.6


def clip(rate):
    """A chirp from 50 Hz to 0.45 of the rate in noise of an LCG, with an impulse; mono, f32.

    The last quarter is nearly silent: its low bands lie below the floors, its high ones above.
    """
    count = round(SECONDS * rate)
    loud = count * 3 // 4
    t = np.arange(loud) / rate
    fastest = (0.45 * rate - 50) / t[-1]
    chirp = np.sin(2 * np.pi * (50 * t + fastest * t * t / 2))
    state, x = 1, np.empty(count)
    for i in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        x[i] = state / 2**31 - 1
    x[:loud] = 0.003 * x[:loud] + 0.4 * chirp * np.hanning(loud)
    x[loud:] *= 2e-5
    x[count // 3] += 0.5
    return x.astype(np.float32)


def stft(x, size, window, hop):
    """[bins, frames]: the window in the middle of each frame, the ends of the clip reflected."""
    before = (size - len(window)) // 2
    padded = np.zeros(size)
    padded[before : before + len(window)] = window
    x = np.pad(x, size // 2, mode="reflect")
    starts = range(0, len(x) - size + 1, hop)
    return np.stack([np.fft.rfft(x[at : at + size] * padded) for at in starts], axis=1)


def triangles(points, bins):
    """[bands, bins]: band b rises from points[b] to points[b + 1] and falls to points[b + 2]."""
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0, np.minimum(up, down))


def symmetric(a, size):
    """The window a - (1 - a) cos, its last sample equal to its first."""
    return a - (1 - a) * np.cos(2 * np.pi * np.arange(size) / (size - 1))


def dymn_bands():
    """Kaldi's, straight over mel; the Nyquist frequency belongs to none."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)
    points = np.linspace(mel(0), mel(15000), 128 + 2)
    bands = triangles(points, mel(np.arange(512) * 32000 / 1024))
    return np.pad(bands, ((0, 0), (0, 1)))


def dymn(x):
    """[128, frames] of a clip at 32 kHz."""
    x = x.astype(np.float64)
    x = x[1:] - 0.97 * x[:-1]
    power = np.abs(stft(x, 1024, symmetric(0.5, 800), 320)) ** 2
    return (np.log(dymn_bands() @ power + 1e-5) + 4.5) / 5


def fdy_bands():
    """HTK's mel, straight over Hz."""
    highest = 2595 * np.log10(1 + 8000 / 700)
    points = 700 * (10 ** (np.linspace(0, highest, 128 + 2) / 2595) - 1)
    return triangles(points, np.linspace(0, 8000, 1025))


def fdy_crnn(x):
    """[128, frames] of a clip at 16 kHz."""
    x = x.astype(np.float64)
    x = x / (np.abs(x).max() + 1e-10)
    amplitude = np.abs(stft(x, 2048, symmetric(0.54, 2048), 256))
    db = 20 * np.log10(np.maximum(fdy_bands() @ amplitude, 1e-5))
    db = np.clip(db, -50, 80)
    least, most = db.min(axis=1, keepdims=True), db.max(axis=1, keepdims=True)
    return (db - least) / (most - least + 1e-8)


def write(tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        kind = {"float32": "F32", "float64": "F64"}[str(values.dtype)]
        values = values.astype(values.dtype.newbyteorder("<")).tobytes()
        shape = list(tensors[name].shape)
        ends = [len(data), len(data) + len(values)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": ends}
        data += values
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    OUT.write_bytes(len(header).to_bytes(8, "little") + header + data)


def compare(clips, found, kind):
    """Largest differences from torch and torchaudio in f64, or in f32 as published codes run."""
    import torch
    import torchaudio

    torch.set_default_dtype(getattr(torch, kind))
    x = torch.from_numpy(clips["dymn"].astype(kind))[None]
    x = torch.nn.functional.conv1d(x[None], torch.tensor([[[-0.97, 1]]]))[0]
    window = torch.hann_window(800, periodic=False)
    x = torch.stft(x, 1024, 320, 800, window, center=True, return_complex=True)
    power = torch.view_as_real(x).pow(2).sum(-1)
    banks = torchaudio.compliance.kaldi.get_mel_banks
    bands, _ = banks(128, 1024, 32000, 0.0, 15000, 100.0, -500.0, 1.0)
    bands = torch.nn.functional.pad(bands, (0, 1))
    print("  Kaldi's bands:", np.abs(bands.numpy() - dymn_bands()).max())
    theirs = ((bands @ power + 1e-5).log() + 4.5) / 5
    print("  DyMN:", np.abs(theirs[0].numpy() - found["dymn"]).max())

    x = torch.from_numpy(clips["fdy_crnn"].astype(kind))
    x = x / (torch.max(torch.max(x), -torch.min(x)) + 1e-10)
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=16000,
        n_fft=2048,
        win_length=2048,
        hop_length=256,
        f_min=0,
        f_max=8000,
        n_mels=128,
        window_fn=torch.hamming_window,
        wkwargs={"periodic": False},
        power=1,
    )
    print("  HTK's bands:", np.abs(mel.mel_scale.fb.numpy().T - fdy_bands()).max())
    db = torchaudio.transforms.AmplitudeToDB(stype="amplitude")
    db.amin = 1e-5
    x = db(mel(x[None])).clamp(min=-50, max=80)
    least, most = torch.amin(x, (0, 2), True), torch.amax(x, (0, 2), True)
    theirs = (x - least) / (most - least + 1e-8)
    print("  FDY-CRNN:", np.abs(theirs[0].numpy() - found["fdy_crnn"]).max())


def main():
    clips = {"dymn": clip(32000), "fdy_crnn": clip(16000)}
    found = {"dymn": dymn(clips["dymn"]), "fdy_crnn": fdy_crnn(clips["fdy_crnn"])}
    write(
        {f"clip.{name}": x for name, x in clips.items()}
        | {f"spectrum.{name}": y for name, y in found.items()}
    )
    for name, y in found.items():
        print(name, y.shape, y.min(), y.max())
    if "--compare" in sys.argv:
        for kind in ["float64", "float32"]:
            print(kind)
            compare(clips, found, kind)


main()
