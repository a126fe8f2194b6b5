#!/usr/bin/env python3
"""dynconv beside other systems: the same shapes, in turns, in one run. See README.md beside this.

Shape by shape, every round runs `dynconv bench` and then each peer, each in a process of its own; a
ratio is the median of those of the rounds. Peers that are not installed are named as not run. All
times are the host's, with the results of the last run waited for.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAMPLE_MS = 2.0  # A sample lasts at least this long.
LIMIT_S = 300  # No peer may take longer over a round of one shape.


def parse_shapes(name):
    """The shapes of a file in benches/shapes/, or of another file of that form. Two axes only."""
    path = ROOT / "benches" / "shapes" / f"{name}.txt"
    path = path if path.exists() else pathlib.Path(name)
    shapes = []
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        said = dict(word.split("=") for word in words[1:])
        twice = lambda text: f"{text}x{text}"
        pair = lambda key, default: [int(n) for n in twice(said.get(key, default)).split("x")[:2]]
        if said["input"].count("x") != 1 or ":" in said.get("padding", ""):
            print(f"{words[0]}: left out, peers take two axes and even padding", file=sys.stderr)
            continue
        cin, cout = pair("channels", "")
        shapes.append({
            "name": words[0], "batch": int(said.get("batch", 1)), "cin": cin, "cout": cout,
            "input": pair("input", ""), "kernel": pair("kernel", ""),
            "stride": pair("stride", "1"), "padding": pair("padding", "0"),
            "dilation": pair("dilation", "1"), "groups": int(said.get("groups", 1)),
            "kernels": int(said.get("kernels", 4)),
        })
    return shapes


class Problem:
    """Numbers of a shape, and what they must give."""

    def __init__(self, shape):
        self.__dict__.update(shape)
        random = np.random.default_rng(1)
        noise = lambda *size: random.uniform(-1, 1, size).astype(np.float32)
        self.x = noise(self.batch, self.cin, *self.input)
        self.bank = noise(self.kernels, self.cout, self.cin // self.groups, *self.kernel)
        self.attention = noise(self.batch, self.kernels)

    def reference(self, sample, weight):
        """One sample in float64, from the definition."""
        pad = [(0, 0)] + [(p, p) for p in self.padding]
        x = np.pad(self.x[sample].astype(np.float64), pad)
        extent = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel)]
        windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))
        windows = windows[
            :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]
        ]
        g = self.groups
        windows = windows.reshape(g, self.cin // g, *windows.shape[1:])
        weight = weight.astype(np.float64).reshape(g, self.cout // g, self.cin // g, *self.kernel)
        axes = ((1, 2, 3), (0, 3, 4))
        return np.concatenate([np.tensordot(weight[i], windows[i], axes) for i in range(g)])

    def error(self, y, is_static):
        """Largest difference of the last sample, relative to the largest output."""
        sample = self.batch - 1
        if is_static:
            weight = self.bank[0]
        else:
            weight = np.tensordot(self.attention[sample].astype(np.float64), self.bank, 1)
        expected = self.reference(sample, weight)
        found = np.asarray(y, dtype=np.float64).reshape(self.batch, *expected.shape)[sample]
        return float(np.abs(found - expected).max() / np.abs(expected).max())


# Peers. Each takes a problem and gives a function that runs it and gives the output. Where that
# does not wait for the work to be done, the function has a `wait`; where the output is no array,
# a `read`.


def torch_setup(p):
    import torch

    torch.set_grad_enabled(False)
    options = {"stride": p.stride, "padding": p.padding, "dilation": p.dilation}
    x, bank, attention = map(torch.from_numpy, (p.x, p.bank, p.attention))
    return torch, x, bank, attention, options


def torch_grouped(p):
    torch, x, bank, attention, options = torch_setup(p)

    def run():
        weight = (attention @ bank.reshape(p.kernels, -1)).reshape(p.batch * p.cout, -1, *p.kernel)
        xs = x.reshape(1, -1, *p.input)
        y = torch.nn.functional.conv2d(xs, weight, groups=p.batch * p.groups, **options)
        return y.reshape(p.batch, p.cout, *y.shape[2:])

    return run


def torch_loop(p):
    torch, x, bank, attention, options = torch_setup(p)

    def run():
        weights = (attention @ bank.reshape(p.kernels, -1)).reshape(p.batch, *bank.shape[1:])
        samples = [
            torch.nn.functional.conv2d(x[b : b + 1], weights[b], groups=p.groups, **options)
            for b in range(p.batch)
        ]
        return torch.cat(samples)

    return run


def torch_static(p):
    torch, x, bank, _, options = torch_setup(p)
    return lambda: torch.nn.functional.conv2d(x, bank[0], groups=p.groups, **options)


def torch_odconv(p):
    """ODConv as a module: attention from the input, gains on input and output, kernels mixed, the
    batch as groups."""
    torch, x, bank, _, options = torch_setup(p)
    torch.manual_seed(1)
    hidden = max(p.cin // 16, 16)
    taps = p.kernel[0] * p.kernel[1]
    reduce = torch.nn.Sequential(
        torch.nn.Conv2d(p.cin, hidden, 1, bias=False),
        torch.nn.BatchNorm2d(hidden),
        torch.nn.ReLU(),
    ).eval()
    heads = [torch.nn.Conv2d(hidden, n, 1) for n in (p.cin, p.cout, taps, p.kernels)]
    has_filter = not p.groups == p.cin == p.cout

    def run():
        a = reduce(torch.nn.functional.adaptive_avg_pool2d(x, 1))
        scaled = x * torch.sigmoid(heads[0](a))
        mix = torch.softmax(heads[3](a).reshape(p.batch, p.kernels), 1)
        mix = mix.reshape(p.batch, p.kernels, 1, 1, 1, 1)
        if taps > 1:
            mix = mix * torch.sigmoid(heads[2](a)).reshape(p.batch, 1, 1, 1, *p.kernel)
        weight = (mix * bank.unsqueeze(0)).sum(1)
        weight = weight.reshape(p.batch * p.cout, -1, *p.kernel)
        xs = scaled.reshape(1, -1, *p.input)
        y = torch.nn.functional.conv2d(xs, weight, groups=p.batch * p.groups, **options)
        y = y.reshape(p.batch, p.cout, *y.shape[2:])
        return y * torch.sigmoid(heads[1](a)) if has_filter else y

    return run


def onnx_model(p, form):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pads = list(p.padding) * 2
    conv = {"strides": p.stride, "pads": pads, "dilations": p.dilation, "kernel_shape": p.kernel}
    ints = lambda name, values: numpy_helper.from_array(np.array(values, np.int64), name)
    constants = [
        numpy_helper.from_array(p.bank.reshape(p.kernels, -1), "bank"),
        ints("y_shape", [p.batch, p.cout, *outputs(p)]),
    ]
    nodes = [helper.make_node("MatMul", ["attention", "bank"], ["rows"])]
    per_group = p.cin // p.groups
    if form == "grouped":
        constants += [
            ints("w_shape", [p.batch * p.cout, per_group, *p.kernel]),
            ints("x_shape", [1, p.batch * p.cin, *p.input]),
        ]
        nodes += [
            helper.make_node("Reshape", ["rows", "w_shape"], ["w"]),
            helper.make_node("Reshape", ["x", "x_shape"], ["xs"]),
            helper.make_node("Conv", ["xs", "w"], ["ys"], group=p.batch * p.groups, **conv),
            helper.make_node("Reshape", ["ys", "y_shape"], ["y"]),
        ]
    else:
        constants += [ints("w_shape", [p.cout, per_group, *p.kernel]), ints("ones", [1] * p.batch)]
        x, rows, ys = ([f"{name}{b}" for b in range(p.batch)] for name in ("x", "row", "y"))
        nodes += [
            helper.make_node("Split", ["x", "ones"], x, axis=0),
            helper.make_node("Split", ["rows", "ones"], rows, axis=0),
        ]
        for b in range(p.batch):
            nodes += [
                helper.make_node("Reshape", [rows[b], "w_shape"], [f"w{b}"]),
                helper.make_node("Conv", [x[b], f"w{b}"], [ys[b]], group=p.groups, **conv),
            ]
        nodes += [helper.make_node("Concat", ys, ["y"], axis=0)]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    inputs = [value("x", p.x.shape), value("attention", p.attention.shape)]
    results = [value("y", [p.batch, p.cout, *outputs(p)])]
    graph = helper.make_graph(nodes, "dynamic", inputs, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def outputs(p):
    size = zip(p.input, p.padding, p.dilation, p.kernel, p.stride)
    return [(i + 2 * pad - d * (k - 1) - 1) // s + 1 for i, pad, d, k, s in size]


def onnxruntime(provider, form):
    def peer(p):
        import onnxruntime as ort

        if provider not in ort.get_available_providers():
            raise ImportError(f"this onnxruntime has no {provider}")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(onnx_model(p, form), options, providers=[provider])
        # A provider that cannot run is replaced in silence.
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"runs on {session.get_providers()[0]} instead")
        return lambda: session.run(None, {"x": p.x, "attention": p.attention})[0]

    return peer


def tinygrad(device):
    def peer(p):
        os.environ["DEV"] = device
        if device == "WEBGPU":
            # Dawn as a library comes with dawn-python.
            import importlib.util

            spec = importlib.util.find_spec("pydawn")
            if spec is None:
                raise ImportError("dawn-python is not installed")
            machine = platform.machine()
            suffixes = {"linux": f"{machine}.so", "darwin": ".dylib", "win32": ".dll"}
            suffix = suffixes.get(sys.platform, ".so")
            folder = pathlib.Path(spec.submodule_search_locations[0])
            libraries = list(folder.glob(f"lib/*webgpu_dawn*{suffix}"))
            if not libraries:
                raise ImportError(f"dawn-python has no library for {sys.platform} on {machine}")
            os.environ.setdefault("WEBGPU_PATH", str(libraries[0]))
        from tinygrad import Device, Tensor, TinyJit

        x, bank, attention = (
            Tensor(v, device=device).realize()
            for v in (p.x, p.bank.reshape(p.kernels, -1), p.attention)
        )

        @TinyJit
        def run():
            weight = attention.matmul(bank).reshape(p.batch * p.cout, p.cin // p.groups, *p.kernel)
            groups = p.batch * p.groups
            y = x.reshape(1, -1, *p.input).conv2d(
                weight, groups=groups, stride=tuple(p.stride), dilation=tuple(p.dilation),
                padding=tuple(p.padding),
            )
            return y.reshape(p.batch, p.cout, *y.shape[2:]).realize()

        # The first call computes, the second records, the third replays.
        run(), run()

        def once():
            return run()

        once.wait = Device[device].synchronize
        once.read = lambda y: y.numpy()
        return once

    return peer


def ncnn_vulkan_static(p):
    import ncnn

    if ncnn.get_gpu_count() == 0:
        raise ImportError("ncnn finds no Vulkan device")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = True
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        if hasattr(net.opt, name):
            setattr(net.opt, name, False)
    kind = "Convolution" if p.groups == 1 else "ConvolutionDepthWise"
    words = {0: p.cout, 1: p.kernel[1], 11: p.kernel[0], 2: p.dilation[1], 12: p.dilation[0],
             3: p.stride[1], 13: p.stride[0], 4: p.padding[1], 14: p.padding[0], 5: 0,
             6: p.bank[0].size, 7: p.groups}
    layer = " ".join(f"{key}={value}" for key, value in words.items())
    with tempfile.TemporaryDirectory() as folder:
        param, weights = pathlib.Path(folder) / "net.param", pathlib.Path(folder) / "net.bin"
        param.write_text(f"7767517\n2 2\nInput in 0 1 x\n{kind} conv 1 1 x y {layer}\n")
        weights.write_bytes(b"\0\0\0\0" + p.bank[0].tobytes())
        if net.load_param(str(param)) or net.load_model(str(weights)):
            raise RuntimeError("ncnn does not load the layer")

    def run():
        samples = []
        for b in range(p.batch):
            extractor = net.create_extractor()
            # A copy, since ncnn wants each channel aligned.
            extractor.input("x", ncnn.Mat(p.x[b]).clone())
            status, y = extractor.extract("y")
            if status:
                raise RuntimeError(f"ncnn ends with {status}")
            samples.append(np.array(y))
        return np.stack(samples)

    run.net = net  # Lives as long as the function.
    return run


PEERS = {
    "torch loop": torch_loop,
    "torch grouped": torch_grouped,
    "torch static": torch_static,
    "torch odconv": torch_odconv,
    "onnxruntime cpu grouped": onnxruntime("CPUExecutionProvider", "grouped"),
    "onnxruntime cpu loop": onnxruntime("CPUExecutionProvider", "loop"),
    "onnxruntime webgpu grouped": onnxruntime("WebGpuExecutionProvider", "grouped"),
    "onnxruntime webgpu loop": onnxruntime("WebGpuExecutionProvider", "loop"),
    "tinygrad webgpu grouped": tinygrad("WEBGPU"),
    "ncnn vulkan static": ncnn_vulkan_static,
    "burn wgpu grouped": None,  # A program of its own, in burn/.
}


def measure(peer, shape, samples):
    """Milliseconds of each sample, and the error of the result."""
    problem = Problem(shape)
    run = PEERS[peer](problem)
    y = run()
    y = getattr(run, "read", np.asarray)(y)
    # The module's attention comes from its own weights, which the reference does not have.
    error = None if peer == "torch odconv" else problem.error(y, peer.endswith("static"))
    if error is not None and not error < 1e-4:
        raise RuntimeError(f"wrong: off by {error:.1e} of the largest output")
    wait = getattr(run, "wait", lambda: None)

    def sample(repeats):
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait()
        return (time.perf_counter() - start) * 1e3 / repeats

    repeats = max(1, math.ceil(SAMPLE_MS / sample(1)))
    times = [sample(repeats) for _ in range(samples)]
    return {"ms": statistics.median(times), "error": error}


def worker(peer, shapes, samples):
    """One round of one peer; a line of JSON a shape."""
    for shape in shapes:
        try:
            result = measure(peer, shape, samples)
        except ImportError as error:
            result = {"missing": str(error)}
        except Exception as error:  # Whatever a peer throws is its result.
            first = str(error).splitlines()[0] if str(error) else ""
            result = {"failed": f"{type(error).__name__}: {first}"}
        print("RESULT " + json.dumps({"shape": shape["name"], **result}), flush=True)


def run_peer(peer, shapes, samples, python):
    """Results of one round by shape."""
    if peer == "burn wgpu grouped":
        program = HERE / "burn" / "target" / "release" / "dynconv-peer-burn"
        command = [str(program), str(samples)]
        if not program.exists():
            return {s["name"]: {"missing": "benches/peers/burn is not built"} for s in shapes}
    else:
        command = [python, __file__, "--worker", peer, "--samples", str(samples)]
    try:
        out = subprocess.run(
            command, input=json.dumps(shapes), capture_output=True, text=True, timeout=LIMIT_S
        )
        text, end = out.stdout, f"the process ended with {out.returncode}"
    except subprocess.TimeoutExpired as error:
        text, end = (error.stdout or b"").decode(), f"took longer than {LIMIT_S} s"
    results = [json.loads(line[7:]) for line in text.splitlines() if line.startswith("RESULT ")]
    found = {result.pop("shape"): result for result in results}
    return {s["name"]: found.get(s["name"], {"failed": end}) for s in shapes}


def kernel_for(options, shape):
    """The kernel that ours are asked to run."""
    is_dense = shape["stride"] == shape["dilation"] == [1, 1] and shape["groups"] == 1
    is_plain = shape["kernel"] == [3, 3] and is_dense
    return "3x3_winograd_simd8" if options.winograd_rows and is_plain else "auto"


def run_dynconv(options, shape, family):
    """The row of `dynconv bench`."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "bench.json"
        file = pathlib.Path(folder) / "shapes.txt"
        axes = lambda values: "x".join(map(str, values))
        file.write_text(
            f"{shape['name']} batch={shape['batch']} channels={shape['cin']}x{shape['cout']}"
            f" input={axes(shape['input'])} kernel={axes(shape['kernel'])}"
            f" stride={axes(shape['stride'])} padding={axes(shape['padding'])}"
            f" dilation={axes(shape['dilation'])} groups={shape['groups']}"
            f" kernels={shape['kernels']}\n"
        )
        command = [options.dynconv, "bench", str(file), "--family", family,
                   "--samples", str(options.samples), "--without-groups",
                   "--kernel", kernel_for(options, shape), "--json", str(path)]
        command += ["--adapter", options.adapter] if options.adapter else []
        out = subprocess.run(command, capture_output=True, text=True)
        if not path.exists():
            sys.exit(f"dynconv bench failed: {out.stderr.strip()}")
        results = json.loads(path.read_text())
    return results, results["rows"][0]


def sgemm_gflops():
    """What the host's cores give a well-known piece of work: low numbers tell of something else
    that runs."""
    a = np.random.default_rng(1).random((1024, 1024), np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(times) * 1e-9


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="peers",
                        help="set of benches/shapes, or a file of that form")
    parser.add_argument("--only", help="names of shapes, with commas")
    parser.add_argument("--peers", help="names of peers, with commas; of all: " + ", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=3, help="samples of a round")
    parser.add_argument("--dynconv", default=str(ROOT / "target" / "release" / "dynconv"))
    parser.add_argument("--adapter", help="as of dynconv")
    parser.add_argument("--winograd-rows", action="store_true",
                        help="our 3 x 3 layers by minimal filtering; the static one by the plain "
                             "sum")
    parser.add_argument("--webgpu-python", default=sys.executable,
                        help="a Python with onnxruntime-webgpu, which excludes onnxruntime")
    parser.add_argument("--markdown", help="write the table to this file too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, json.load(sys.stdin), options.samples)

    is_asked = lambda name: not options.only or name in options.only.split(",")
    shapes = [s for s in parse_shapes(options.shapes) if is_asked(s["name"])]
    peers = [name for name in PEERS if not options.peers or name in options.peers.split(",")]
    if not shapes or not peers:
        sys.exit("no shape, or no peer, of these names")
    ours, found, notes, gauge = {}, {peer: {} for peer in peers}, {}, []
    families = ["given"] + ["odconv"] * ("torch odconv" in peers)
    # Shape by shape, so that what is compared ran close together: other work on the machine then
    # slows both.
    for shape in shapes:
        name = shape["name"]
        for number in range(options.rounds):
            print(f"{name}, round {number + 1}", file=sys.stderr)
            gauge.append(sgemm_gflops())
            now = {}
            for family in families:
                header, row = run_dynconv(options, shape, family)
                now[family], now["static"] = row["wall_ms"], row["static_wall_ms"]
            for kind, ms in now.items():
                ours.setdefault((kind, name), []).append(ms)
            for peer in peers:
                if "not run" in notes.get(peer, {}) or name in notes.get(peer, {}):
                    continue  # The next round would not change that.
                python = options.webgpu_python if "onnxruntime webgpu" in peer else sys.executable
                result = run_peer(peer, [shape], options.samples, python)[name]
                if "ms" in result:
                    ratio = result["ms"] / now[compared(peer)]
                    found[peer].setdefault(name, []).append((result["ms"], ratio))
                elif "missing" in result:
                    notes.setdefault(peer, {})["not run"] = result["missing"]
                else:
                    notes.setdefault(peer, {})[name] = result["failed"]
    text = table(header, shapes, ours, found, notes)
    text += "\n\nNumPy's matrix product before each round: "
    text += f"{min(gauge):.0f} to {max(gauge):.0f} GFLOP/s."
    print(text)
    if options.markdown:
        pathlib.Path(options.markdown).write_text(text + "\n")


def compared(peer):
    """The kind of our layers that a peer is compared with."""
    return "odconv" if "odconv" in peer else "static" if peer.endswith("static") else "given"


def table(header, shapes, ours, found, notes):
    """Milliseconds, and how many times as long as dynconv in the same round: medians of both."""
    times = {key: statistics.median(values) for key, values in ours.items()}
    there = [peer for peer in found if found[peer]]
    lines = [
        f"dynconv {header['dynconv']} on {header['adapter']} ({header['driver']}), measured peak "
        f"{header['peak_gflops']:.0f} GFLOP/s.",
        "",
        "Milliseconds, and in brackets how many times as long as dynconv's layer of the same kind "
        "in the same round: above 1, dynconv is faster.",
        "",
    ]
    kinds = ["given"] + ["odconv"] * any(compared(peer) == "odconv" for peer in there) + ["static"]
    cells = ["shape"] + [f"dynconv {kind}" for kind in kinds] + there
    lines += ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"]
    number = lambda ms: f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"
    ratios = {peer: [] for peer in there}
    for shape in shapes:
        name = shape["name"]
        cells = [name] + [
            number(times[kind, name]) if (kind, name) in times else "-" for kind in kinds
        ]
        for peer in there:
            if name in found[peer]:
                ms, ratio = map(statistics.median, zip(*found[peer][name]))
                ratios[peer].append(ratio)
                cells.append(f"{number(ms)} ({ratio:.2f})")
            else:
                cells.append("-")
        lines.append("| " + " | ".join(cells) + " |")
    means = [
        f"{geometric_mean(r):.2f} ({len(r)} shapes)" if (r := ratios[peer]) else "-"
        for peer in there
    ]
    lines.append("| " + " | ".join(["geometric mean"] + ["1"] * len(kinds) + means) + " |")
    for peer, reasons in notes.items():
        lines += [f"\n{peer}: " + "; ".join(f"{what}: {why}" for what, why in reasons.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
