"""A small CNN trained on several ranks, with the energy of each epoch beside its loss.

    torchrun --nproc-per-node=2 examples/train_ddp.py --epochs 3

Two lines are ours: the import, and `with carbon_span("epoch")`. With an exporter on the node, Prometheus then has
`carbon_span_energy_kwh_total{span="epoch", rank="0"}` and `carbon_span_value{name="loss"}`; with `--traces FILE` the
OpenTelemetry spans, with `carbon.energy` on them, are written there as JSON.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from carbon_exporter import carbon_span


def blobs(images: int) -> TensorDataset:
    """Noise with a bright square in one of four corners; which one is the label."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (images,), generator=generator)
    pictures = torch.randn(images, 1, 16, 16, generator=generator)
    for number, corner in enumerate(labels.tolist()):
        top, left = 8 * (corner // 2), 8 * (corner % 2)
        pictures[number, 0, top : top + 8, left : left + 8] += 1.0
    return TensorDataset(pictures, labels)


def network() -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def train(epochs: int, images: int, workers: int) -> None:
    """The loop that everybody knows."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = blobs(images)
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=32, sampler=sampler, num_workers=workers)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        total, right = 0.0, 0
        with carbon_span("epoch", attributes={"epoch": epoch}) as span:
            for pictures, labels in loader:
                optimizer.zero_grad()
                output = model(pictures)
                loss = nn.functional.cross_entropy(output, labels)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(labels)
                right += int((output.argmax(1) == labels).sum())
            span.record(loss=total / len(sampler), accuracy=right / len(sampler))
        rank = distributed.get_rank()
        print(
            f"rank {rank} epoch {epoch}: loss {total / len(sampler):.4f}, {span.energy_kwh * 3.6e6:.2f} J", flush=True
        )
    distributed.destroy_process_group()


def write_traces(directory: Path) -> None:
    """Let OpenTelemetry write this rank's spans to a file, as JSON."""
    from opentelemetry import trace  # noqa: PLC0415 - only who asks for traces pays for them
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor  # noqa: PLC0415

    provider = TracerProvider()
    file = (directory / f"rank{os.environ.get('RANK', '0')}.json").open("w")
    one_line = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(one_line))
    trace.set_tracer_provider(provider)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=1, help="processes of each rank that load data")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="write OpenTelemetry spans here, a file a rank")
    arguments = parser.parse_args()
    if arguments.traces:
        write_traces(arguments.traces)
    train(arguments.epochs, arguments.images, arguments.workers)


if __name__ == "__main__":
    main()
