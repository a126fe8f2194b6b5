#!/usr/bin/env python3
"""Whole networks beside PyTorch's own forms, in turns, in one run. See README.md beside this.

Every round runs, network by network and batch by batch, `dynconv bench --net` and then PyTorch's
dynamic and static network, each in a process of its own; a ratio is the median of those of the
rounds. What is not installed is named as not run. All times are the host's, with the results of
the last run waited for.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True  # Leaves no folder beside peers.py.
from peers import ROOT, sgemm_gflops

LIMIT_S = 900  # No process may take longer.
KERNELS = 4
FORMS = ("dynamic", "static")


def od_conv(mix):
    """PyTorch's ODConv: attention from the input, gains on input and output, the batch as groups.

    Kernels are mixed by `product`, kernel by kernel and then summed, as published; or by `matmul`,
    a matrix product.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    class ODConv(nn.Module):
        def __init__(self, c_in, c_out, side, stride=1, groups=1):
            super().__init__()
            self.side, self.stride, self.groups = side, stride, groups
            self.weight = nn.Parameter(torch.empty(KERNELS, c_out, c_in // groups, side, side))
            for kernel in self.weight:
                nn.init.kaiming_normal_(kernel)
            hidden = max(c_in // 16, 16)
            heads = {"channel_fc": c_in, "kernel_fc": KERNELS}
            if not c_in == groups == c_out:
                heads["filter_fc"] = c_out
            if side > 1:
                heads["spatial_fc"] = side * side
            self.attention = nn.ModuleDict({
                "fc": nn.Conv2d(c_in, hidden, 1, bias=False),
                "bn": nn.BatchNorm2d(hidden),
                **{name: nn.Conv2d(hidden, count, 1) for name, count in heads.items()},
            })

        def kernels(self, mix_of, taps):
            """A kernel a sample; `mix_of` is (batch, kernels), `taps` (batch, 1, side, side)."""
            if mix == "matmul":
                weight = (mix_of @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
                return weight if taps is None else weight * taps.unsqueeze(1)
            factors = mix_of[:, :, None, None, None, None]
            if taps is not None:
                factors = factors * taps[:, None, None]
            return (factors * self.weight).sum(1)

        def forward(self, x):
            batch, heads = len(x), self.attention
            hidden = heads["bn"](heads["fc"](F.adaptive_avg_pool2d(x, 1)))
            hidden = F.relu(hidden, inplace=True)
            gain = lambda name: torch.sigmoid(heads[name](hidden))
            taps = None
            if "spatial_fc" in heads:
                taps = gain("spatial_fc").reshape(batch, 1, self.side, self.side)
            weight = self.kernels(torch.softmax(heads["kernel_fc"](hidden).flatten(1), 1), taps)
            x = (x * gain("channel_fc")).flatten(0, 1).unsqueeze(0)
            y = F.conv2d(x, weight.flatten(0, 1), None, self.stride, self.side // 2,
                         groups=batch * self.groups)
            y = y.reshape(batch, -1, *y.shape[2:])
            return y * gain("filter_fc") if "filter_fc" in heads else y

    return ODConv


def static_conv(c_in, c_out, side, stride=1, groups=1):
    from torch import nn

    return nn.Conv2d(c_in, c_out, side, stride, side // 2, groups=groups, bias=False)


def resnet(depth, conv):
    """ResNet18 or ResNet50; `conv` makes the blocks' convolutions, but for those of shortcuts."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, c_in, c, c_out, stride, is_first):
            super().__init__()
            if depth == 18:
                convs = [(c_in, c, 3, stride), (c, c, 3)]
            else:
                convs = [(c_in, c, 1), (c, c, 3, stride), (c, c_out, 1)]
            self.count = len(convs)
            for number, what in enumerate(convs, 1):
                setattr(self, f"conv{number}", conv(*what))
                setattr(self, f"bn{number}", nn.BatchNorm2d(what[1]))
            self.downsample = None
            if is_first and c_in != c_out:
                shortcut = static_conv(c_in, c_out, 1, stride)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(c_out))

        def forward(self, x):
            y = x
            for number in range(1, self.count + 1):
                y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
                if number < self.count:
                    y = F.relu(y, inplace=True)
            y += x if self.downsample is None else self.downsample(x)
            return F.relu(y, inplace=True)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = static_conv(3, 64, 7, 2), nn.BatchNorm2d(64)
            c_in, counts = 64, (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
            for stage, count in enumerate(counts):
                c = 64 << stage
                c_out = c if depth == 18 else 4 * c
                blocks = []
                for number in range(count):
                    stride = 2 if stage > 0 and number == 0 else 1
                    blocks.append(Block(c_in, c, c_out, stride, number == 0))
                    c_in = c_out
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(c_in, 1000)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
            for stage in range(1, 5):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    return ResNet()


def mobilenet_v2(conv):
    """MobileNetV2 of width 1; `conv` makes all convolutions but the first."""
    from torch import nn
    from torch.nn import functional as F

    def plain(kind, c_in, c_out, side, stride=1, groups=1):
        parts = kind(c_in, c_out, side, stride, groups), nn.BatchNorm2d(c_out)
        return nn.Sequential(*parts, nn.ReLU6(inplace=True))

    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride, expansion):
            super().__init__()
            wide = c_in * expansion
            parts = [plain(conv, c_in, wide, 1)] if expansion > 1 else []
            parts += [plain(conv, wide, wide, 3, stride, wide), conv(wide, c_out, 1)]
            self.conv = nn.Sequential(*parts, nn.BatchNorm2d(c_out))
            self.has_sum = stride == 1 and c_in == c_out

        def forward(self, x):
            return x + self.conv(x) if self.has_sum else self.conv(x)

    class MobileNetV2(nn.Module):
        def __init__(self):
            super().__init__()
            groups = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                      (6, 160, 3, 2), (6, 320, 1, 1)]
            features, c_in = [plain(static_conv, 3, 32, 3, 2)], 32
            for expansion, c_out, count, stride in groups:
                for number in range(count):
                    features.append(Block(c_in, c_out, 1 if number else stride, expansion))
                    c_in = c_out
            self.features = nn.Sequential(*features, plain(conv, c_in, 1280, 1))
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

        def forward(self, x):
            return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))

    return MobileNetV2()


def efficientnet(conv):
    """EfficientNet b0 of timm, with its own CondConv or with none."""
    import timm

    return timm.create_model("tf_efficientnet_b0" if conv is static_conv
                             else "tf_efficientnet_cc_b0_4e")


NETS = {
    "od_resnet18": lambda conv: resnet(18, conv),
    "od_resnet50": lambda conv: resnet(50, conv),
    "od_mobilenetv2": mobilenet_v2,
    "tf_efficientnet_cc_b0_4e": efficientnet,
}


def network(name, form, mix="product"):
    """A network of PyTorch, with random weights."""
    from torch import nn

    net = NETS[name](static_conv if form == "static" else od_conv(mix)).eval()
    # Fresh norms do nothing: activations would fade, and the smallest numbers are slow to compute.
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, middle in ((module.weight, 1), (module.bias, 0),
                                   (module.running_mean, 0), (module.running_var, 1)):
                tensor.uniform_(middle - 0.17, middle + 0.17)
    return net


def measure(job):
    """The median of a network's times, and versions."""
    import torch

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(1)
    with torch.inference_mode():
        net = network(job["net"], job["form"], job["mix"])
        x = torch.randn(job["batch"], 3, job["size"], job["size"])
        y = net(x)
        if not y.isfinite().all() or not y.any():
            raise RuntimeError("the output is not finite, or zero")
        times = []
        for _ in range(job["samples"]):
            start = time.perf_counter()
            net(x)
            times.append(1e3 * (time.perf_counter() - start))
    versions = {name: sys.modules[name].__version__ for name in ("torch", "timm")
                if name in sys.modules}
    return {"ms": statistics.median(times), "versions": versions,
            "threads": torch.get_num_threads()}


def worker(job):
    """One round of one network of PyTorch; a line of JSON."""
    try:
        result = measure(job)
    except ImportError as error:
        result = {"missing": str(error)}
    except Exception as error:  # Whatever it throws is its result.
        first = str(error).splitlines()[0] if str(error) else ""
        result = {"failed": f"{type(error).__name__}: {first}"}
    print("RESULT " + json.dumps(result), flush=True)


def run_process(command):
    """What a process printed, how it ended, and its peak memory in MB."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.daemon = True
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
    unit = 1 if sys.platform == "darwin" else 1024
    return text, process.returncode, usage.ru_maxrss * unit / 1e6


def run_torch(options, name, batch, form):
    job = {"net": name, "form": form, "batch": batch, "mix": options.mix, "size": options.size,
           "samples": options.samples}
    text, code, peak_mb = run_process([sys.executable, __file__, "--worker", json.dumps(job)])
    for line in text.splitlines():
        if line.startswith("RESULT "):
            return {**json.loads(line[7:]), "peak_mb": peak_mb}
    return {"failed": f"the process ended with {code}"}


def run_dynconv(options, name, batch):
    """The row of `dynconv bench --net`."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "bench.json"
        command = [options.dynconv, "bench", "--net", name, "--batch", str(batch),
                   "--size", str(options.size), "--samples", str(options.samples),
                   "--json", str(path)]
        command += ["--adapter", options.adapter] if options.adapter else []
        text, code, peak_mb = run_process(command)
        lines = text.strip().splitlines() or [""]
        if code or not path.exists():
            return {"failed": f"ended with {code}: {lines[-1]}"}
        row = json.loads(path.read_text())[0]
    return {**row, "adapter": lines[0], "peak_mb": peak_mb}


def run_round(options, name, batch, notes):
    """Figures of one round; what did not run is left out, and noted."""
    runs = {"dynconv": lambda: run_dynconv(options, name, batch)}
    for form in FORMS:
        runs[f"PyTorch {form}"] = lambda form=form: run_torch(options, name, batch, form)
    found = {}
    for what, run in runs.items():
        where = f"{what}, {name}, batch {batch}"
        if where in notes:
            continue  # The next round would not change that.
        result = run()
        if "ms" in result:
            found[what] = result
        else:
            missing = result.get("missing")
            notes[where] = f"Not run, {missing}" if missing else f"Failed, {result['failed']}"
    return found


def figures(batch, found):
    """Columns of a round, by name."""
    ours, dynamic, static = (found.get(w) for w in ("dynconv", *(f"PyTorch {f}" for f in FORMS)))
    row = {}
    if ours:
        row.update({
            "dynconv ms": ours["ms"][1],
            "dynconv over its twin": ours["over_twin"],
            "first use ms": ours["first_use_ms"],
            "record us": ours["record_us"],
            "arena over alive": ours["arena_mb"] / ours["alive_mb"],
            "dynconv peak MB": ours["peak_mb"],
        })
    if dynamic:
        row.update({"PyTorch ms": dynamic["ms"], "PyTorch peak MB": dynamic["peak_mb"]})
    if dynamic and static:
        row["PyTorch over its twin"] = dynamic["ms"] / static["ms"]
    if dynamic and ours:
        row["PyTorch over dynconv"] = dynamic["ms"] / ours["ms"][1]
    for who in ("dynconv", "PyTorch"):
        if f"{who} ms" in row:
            row[f"{who} images/s"] = 1e3 * batch / row[f"{who} ms"]
    return row


def number(value):
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


COLUMNS = {
    "dynconv images/s": number,
    "dynconv ms": number,
    "dynconv over its twin": "{:.2f}".format,
    "PyTorch images/s": number,
    "PyTorch ms": number,
    "PyTorch over its twin": "{:.2f}".format,
    "PyTorch over dynconv": "{:.2f}".format,
    "first use ms": "{:.0f}".format,
    "record us": number,
    "arena over alive": "{:.2f}".format,
    "dynconv peak MB": "{:.0f}".format,
    "PyTorch peak MB": "{:.0f}".format,
}


def table(rounds):
    """A line a network and batch: medians of the rounds."""
    lines = ["| " + " | ".join(["network", "batch", *COLUMNS]) + " |",
             "|---" * (len(COLUMNS) + 2) + "|"]
    ratios = []
    for (name, batch), rows in rounds.items():
        cells = [name, str(batch)]
        for column, show in COLUMNS.items():
            values = [row[column] for row in rows if column in row]
            cells.append(show(statistics.median(values)) if values else "-")
            if values and column == "PyTorch over dynconv":
                ratios.append(statistics.median(values))
        lines.append("| " + " | ".join(cells) + " |")
    if ratios:
        lines += ["", "Above 1 in \"PyTorch over dynconv\", dynconv is faster; geometric mean "
                  f"{math.exp(statistics.mean(map(math.log, ratios))):.2f}."]
    return "\n".join(lines)


def header(options, results):
    """What ran."""
    threads, adapter, versions = None, "did not run", {}
    for result in results:
        adapter = result.get("adapter", adapter)
        versions.update(result.get("versions", {}))
        threads = result.get("threads", threads)
    there = ", ".join(f"{name} {version}" for name, version in versions.items())
    torch = f"{there}, {threads} threads, kernels mixed by {options.mix}"
    return (f"dynconv: {adapter}. PyTorch: {torch if there else 'did not run'}. "
            f"Input {options.size} x {options.size}; rounds: {options.rounds}, samples of a round: "
            f"{options.samples}.")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="networks, with commas; of all: " + ", ".join(NETS))
    parser.add_argument("--batches", default="1,8", help="with commas")
    parser.add_argument("--size", type=int, default=224, help="height and width of the input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5, help="samples of a round")
    parser.add_argument("--mix", choices=("product", "matmul"), default="product",
                        help="how PyTorch's ODConv mixes kernels: as published, or by a matrix "
                             "product, which is faster")
    parser.add_argument("--dynconv", default=str(ROOT / "target" / "release" / "dynconv"))
    parser.add_argument("--adapter", help="as of dynconv")
    parser.add_argument("--markdown", help="write the table to this file too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(json.loads(options.worker))

    names = options.only.split(",") if options.only else list(NETS)
    unknown = [name for name in names if name not in NETS]
    if unknown:
        sys.exit(f"no network {unknown[0]}; there are {', '.join(NETS)}")
    if not pathlib.Path(options.dynconv).exists():
        sys.exit(f"no program {options.dynconv}: build it, or name it by --dynconv")
    batches = [int(batch) for batch in options.batches.split(",")]
    rounds = {(name, batch): [] for name in names for batch in batches}
    notes, gauge, results = {}, [], []
    for count in range(options.rounds):
        for (name, batch), rows in rounds.items():
            print(f"round {count + 1}, {name}, batch {batch}", file=sys.stderr)
            gauge.append(sgemm_gflops())
            found = run_round(options, name, batch, notes)
            results += found.values()
            rows.append(figures(batch, found))
    text = header(options, results) + "\n\n" + table(rounds)
    for why in dict.fromkeys(notes.values()):
        text += f"\n\n{why}: " + "; ".join(where for where in notes if notes[where] == why) + "."
    text += "\n\nNumPy's matrix product before each network: "
    text += f"{min(gauge):.0f} to {max(gauge):.0f} GFLOP/s."
    print(text)
    if options.markdown:
        pathlib.Path(options.markdown).write_text(text + "\n")


if __name__ == "__main__":
    main()
