"""Cell context trained on a finished detector, and together with its classifier.

    python tests/benchmarks/joint_context.py --data data/tseng2023-official --images 1000

The boxes that the detector keeps of each image are pooled once. Then two contexts are trained on
them from the same start: one on fixed features, as ``make context`` does, and one together with the
classification stream, the margin and the inference branch. Local centers are those of the kept
boxes, in training and in validation, for both. The trunk stays as it is.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from hydra.utils import instantiate
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.context import ContextCell, Disturbance, pad_cells
from deepacc_d2.context.batches import IGNORED
from deepacc_d2.context.cells import check_predictor, true_labels
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.data.union import DataSets
from deepacc_d2.modeling import CellContext
from deepacc_d2.modeling.cell_context import box_shapes, evidence
from deepacc_lightning.training.datamodule import thin

SHIPPED = Path(__file__).resolve().parents[2] / "deepacc_d2" / "weights" / "deepacc.ckpt"
DROP = Disturbance().drop


@dataclass(frozen=True, eq=False)
class Pooled:
    """What a detector keeps of a cell, before its box head.

    Attributes:
        regions: (N, c, s, s) float16.
        boxes: (N, 4) XYXY of the proposals.
        shapes: (N, 3), see :func:`deepacc_d2.modeling.cell_context.box_shapes`.
        labels: (N,), K for a box on no chromosome.
    """

    regions: Tensor
    boxes: Tensor
    shapes: Tensor
    labels: Tensor


class Reader(nn.Module):
    """Classification stream, branches and a new context, of a detector.

    Args:
        model: the detector; its parts are copied.
        context: the new context.
    """

    def __init__(self, model: nn.Module, context: CellContext) -> None:
        super().__init__()
        heads = copy.deepcopy(model.roi_heads)  # type: ignore[arg-type]
        self.box_head = heads.box_head
        self.margin_branch = heads.box_predictor.margin_branch
        self.inference_branch = heads.box_predictor.inference_branch
        self.context = context

    def forward(self, cells: list[Pooled]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log-probabilities (B, L, C) in context and by the box, and labels (B, L)."""
        counts = [len(cell.labels) for cell in cells]
        regions = torch.cat([cell.regions for cell in cells]).float()
        x = self.box_head(regions)
        x = (x[0] if isinstance(x, tuple) else x).flatten(start_dim=1)
        margin = self.margin_branch(x)
        boxes = torch.cat([cell.boxes for cell in cells])
        result, _ = self.inference_branch(x, margin, self.margin_branch.weight, counts, boxes)
        known = evidence(x, margin, result).split(counts)
        batch = [
            ContextCell(k, cell.shapes, cell.labels, 0)
            for k, cell in zip(known, cells, strict=True)
        ]
        padded, shapes, hidden, labels = pad_cells(batch)
        by_box = padded[..., -(NUM_CLASSES + 1) :]
        return self.context.correct(padded, shapes, hidden), by_box, labels


@torch.no_grad()
def pooled(
    model: nn.Module, mapper: MetaphaseMapper, dicts: list[dict[str, object]], seed: int
) -> list[Pooled]:
    """Runs the detector on images, and keeps the regions of the boxes that context would read."""
    predictor = check_predictor(model)
    heads = model.roi_heads
    context, predictor.context = predictor.context, None
    assert isinstance(context, CellContext)
    cells = []
    for n, item in enumerate(tqdm(dicts, unit="image")):
        np.random.seed(seed + n)  # noqa: NPY002
        mapped = mapper(item)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = model.preprocess_image([mapped])
            maps = model.backbone(images.tensor)
            proposals, _ = model.proposal_generator(images, maps, None)
            placed: list[Instances] = proposals
            levels = [maps[name].float() for name in heads.box_in_features]
            regions = heads.box_pooler(levels, [p.proposal_boxes for p in placed])
            output = heads._predict_regions(heads.box_head(regions), placed)
        logits, deltas = (t.float() for t in output.predictions)
        at = Boxes.cat([p.proposal_boxes for p in placed]).tensor
        boxes = predictor.best_boxes(logits, deltas, at)
        rows = context.keep(boxes, logits)
        labels = true_labels(mapped, boxes[rows], logits[rows])
        cells.append(Pooled(regions[rows].half(), at[rows], box_shapes(boxes[rows]), labels))
    predictor.context = context
    return [cell for cell in cells if len(cell.labels)]


def dropped(cell: Pooled, rng: np.random.Generator) -> Pooled:
    """Leaves out some boxes of a cell, as ``make context`` does."""
    kept = torch.from_numpy(rng.random(len(cell.labels)) >= 2 * DROP * rng.random())
    return Pooled(cell.regions[kept], cell.boxes[kept], cell.shapes[kept], cell.labels[kept])


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of padded cells."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def shares(reader: Reader, cells: list[Pooled]) -> tuple[float, float]:
    """Shares, in percent, of found chromosomes that are named right: by the box, in context."""
    reader.eval()
    right, found = np.zeros(2), 0
    for start in range(0, len(cells), 16):
        logits, by_box, labels = reader(cells[start : start + 16])
        real = (labels >= 0) & (labels < NUM_CLASSES)
        found += int(real.sum())
        for n, each in enumerate((by_box, logits)):
            right[n] += int((each[..., :-1].argmax(dim=-1) == labels)[real].sum())
    by_box_share, in_context = 100 * right / max(found, 1)
    return float(by_box_share), float(in_context)


def train(
    reader: Reader, cells: list[Pooled], *, epochs: int, joint: bool, lr: float, seed: int
) -> None:
    """Trains the context, and with ``joint`` what it reads as well, at a tenth of the rate."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    below = [*reader.box_head.parameters(), *reader.margin_branch.parameters()]
    below += reader.inference_branch.parameters()
    for parameter in below:
        parameter.requires_grad_(joint)
    groups = [{"params": list(reader.context.requires_grad_(True).parameters()), "lr": lr}]
    if joint:
        groups.append({"params": below, "lr": lr / 10})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = epochs * -(-len(cells) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g["lr"] for g in groups], total_steps=steps, pct_start=0.1
    )
    with tqdm(total=steps, unit="step", desc="joint" if joint else "fixed") as bar:
        for _ in range(epochs):
            reader.train()
            order = rng.permutation(len(cells))
            for start in range(0, len(cells), 32):
                batch = [dropped(cells[i], rng) for i in order[start : start + 32]]
                logits, by_box, labels = reader([c for c in batch if len(c.labels)])
                loss = loss_of(logits, labels)
                if joint:  # boxes are asked by themselves too, as in the detector's own training
                    loss = loss + loss_of(by_box, labels)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.update()


def main() -> None:
    """Reads, trains both ways and prints what comes out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", required=True)
    parser.add_argument("--ckpt", default=str(SHIPPED))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--val-images", type=int, default=350)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--keep", type=Path, help="file for the pooled boxes, for another run")
    options = parser.parse_args()
    content = read_checkpoint(options.ckpt)
    model = build_from_checkpoint(content, options.ckpt).eval()
    model = model.to(memory_format=torch.channels_last)
    old = check_predictor(model).context
    if old is None:
        parser.error(f"{options.ckpt} has no context: it says which boxes are kept")
    scale = content["deepacc_config"]["scale"]
    data = DataSets.of(options.data)
    cells: dict[str, list[Pooled]] = {}
    if options.keep and options.keep.is_file():
        kept = torch.load(options.keep, weights_only=True)
        cells = {split: [Pooled(*each) for each in of_split] for split, of_split in kept.items()}
    missing = {} if cells else {"train": options.images, "val": options.val_images}
    for split, number in missing.items():
        nodes = scale["train_augmentations" if split == "train" else "test_augmentations"]
        mapper = MetaphaseMapper([instantiate(node) for node in nodes], is_train=True)
        cells[split] = pooled(model, mapper, data.dicts(thin(data.split(split), number)), 1)
    if options.keep and missing:
        plain = {k: [(c.regions, c.boxes, c.shapes, c.labels) for c in v] for k, v in cells.items()}
        torch.save(plain, options.keep)
    node = dict(content["deepacc_config"]["model"]["roi_heads"]["box_predictor"]["context"])
    rows: list[list[object]] = []
    for joint in (False, True):
        for seed in options.seeds:
            torch.manual_seed(seed)
            reader = Reader(model, instantiate(node))
            if not rows:
                rows.append(["the boxes alone, before", "", shares(reader, cells["val"])[0], ""])
            train(reader, cells["train"], epochs=options.epochs, joint=joint, lr=1e-3, seed=seed)
            rows.append(["joint" if joint else "fixed", seed, *shares(reader, cells["val"])])
            print(rows[-1], flush=True)
    header = ["training", "seed", "named right by the box, %", "in context, %"]
    print(tabulate(rows, header, floatfmt=".2f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
