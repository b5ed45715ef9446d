"""Time this project against torchvision or an older commit, as a Markdown table.

`python scripts/benchmark.py ops` times the RoI operators, `convolution` 3×3 convolutions on the CPU, `step` a training
step and an inference pass of whole detectors, `train` a training of Mask R-CNN. Others measure time and memory: `match`
of matching anchors with objects, `data` of reading and augmenting images, `masks` of encoding and cropping masks,
`selection` of keeping the best of many boxes, `evaluation` of the metrics; with `--against COMMIT` also those of that
commit, in a git worktree of it. `annotations` loads a million objects beside pycocotools. `loop` times each step of the
first command's training beside one of a plain loop without Lightning. `runtimes` times inference beside exported files
in ONNX Runtime and OpenVINO, in float32 and in 8 bits.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ops import benchmark


WORKLOADS = ("data", "evaluation", "masks", "match", "selection")
"""The files of `detector/training/workloads`."""


def torchvision_pool(workload: benchmark.Workload, boxes: list[Tensor]) -> benchmark.Pool:
    """Return a function that pools a workload's features with torchvision's multi-scale RoIAlign."""
    from torchvision.ops import MultiScaleRoIAlign

    from ops import benchmark

    names = [str(i) for i in range(len(benchmark.STRIDES))]
    pooler = MultiScaleRoIAlign(
        names, workload.pooled, benchmark.SAMPLES, canonical_scale=round(workload.canonical_size), canonical_level=4
    )
    sizes = [(workload.height, workload.width)] * workload.images
    return lambda features: pooler(dict(zip(names, features, strict=True)), boxes, sizes)


def main() -> int:
    """Parse the command line and print the table; returns 1 after a message if an argument is invalid."""
    parser = argparse.ArgumentParser(prog="python scripts/benchmark.py", description=__doc__)
    parser.add_argument(
        "what",
        choices=["ops", "step", "convolution", "train", "loop", "runtimes", "annotations", *WORKLOADS],
        help="what to time",
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    rounds_help = "timed calls of each function (9), turns of training (5), or processes of each workload (3)"
    parser.add_argument("--rounds", type=int, help=rounds_help)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--against", metavar="COMMIT", help=f"commit to compare with; for {', '.join(WORKLOADS)}")
    both = ["float32", "bfloat16"]
    parser.add_argument("--dtypes", nargs="+", choices=both, default=both, help="for step and train (both)")
    parser.add_argument("--objects", type=int, default=1_000_000, help="for annotations (1000000)")
    train = parser.add_argument_group("train")
    train.add_argument("--size", type=int, nargs=2, default=(800, 1333), help="of the images (800 1333)")
    train.add_argument("--images", type=int, default=2, help="in a batch (2)")
    train.add_argument("--rois", type=int, default=512, help="sampled of each image (512)")
    train.add_argument("--backbone", default="resnet50", help="torchvision's name of a ResNet (resnet50)")
    train.add_argument("--steps", type=int, help="in each of the rounds (10), or of loop (100)")
    arguments = parser.parse_args()

    import torch

    from detector.config.cli import keep_memory
    from detector.training import against, beside_plain_loop, beside_pycocotools, beside_runtimes, beside_torchvision
    from detector.training import benchmark as steps
    from ops import benchmark

    usual = {"ops": 9, "step": 9, "convolution": 9, "train": 5, "runtimes": 9}.get(arguments.what, 3)
    rounds = usual if arguments.rounds is None else arguments.rounds
    steps_of_each = (100 if arguments.what == "loop" else 10) if arguments.steps is None else arguments.steps
    counts = (rounds, arguments.threads or 1, arguments.images, arguments.rois, steps_of_each, arguments.objects)
    if min(counts) < 1 or min(arguments.size) < 32:
        print("error: --rounds, --threads and other counts must be at least 1; of --size, at least 32", file=sys.stderr)
        return 1
    cuda = torch.cuda.is_available()
    if arguments.device not in (None, "cpu", "cuda") or (arguments.device == "cuda" and not cuda):
        print(f"error: --device {arguments.device} is not available; use --device cpu", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if cuda else "cpu"))
    dtypes = [getattr(torch, name) for name in arguments.dtypes]
    if arguments.against is not None and arguments.what not in WORKLOADS:
        print(f"error: --against is for {', '.join(WORKLOADS)}, not for {arguments.what}", file=sys.stderr)
        return 1
    if arguments.what in (*WORKLOADS, "train", "loop", "runtimes", "annotations"):
        try:
            if arguments.what == "train":
                training = beside_torchvision.Training(
                    arguments.backbone,
                    tuple(arguments.size),
                    arguments.images,
                    rois=arguments.rois,
                    turns=rounds,
                    steps=steps_of_each,
                )
                beside_torchvision.run(training, device, dtypes)
            elif arguments.what == "loop":
                print(f"{benchmark.describe(device)}\n")
                keep_memory()
                beside_plain_loop.run(steps_of_each, device)
            elif arguments.what == "runtimes":
                keep_memory()
                beside_runtimes.run(arguments.threads, rounds)
            elif arguments.what == "annotations":
                print(f"{benchmark.describe(torch.device('cpu'))}; medians over {rounds} processes\n")
                beside_pycocotools.run(arguments.objects, rounds)
            else:
                print(f"{benchmark.describe(device)}; medians over {rounds} processes\n")
                against.report(arguments.what, arguments.against, device, rounds)
        except (ValueError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    if arguments.what == "step":
        keep_memory()
        steps.run(device, rounds, dtypes)
        return 0
    if arguments.what == "convolution":
        keep_memory()
        benchmark.run_convolutions(rounds)
        return 0
    workloads = benchmark.CUDA_WORKLOADS if device.type == "cuda" else benchmark.CPU_WORKLOADS
    benchmark.run("torchvision", torchvision_pool, device, workloads, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
