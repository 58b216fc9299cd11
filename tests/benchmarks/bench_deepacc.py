"""What DeepACC costs next to the separated heads alone: row (f) of its Table 1 against row (b).

Both are ``conf/scale/paper.yaml``'s R-101-FPN on one 800 x 1067 image with 46 boxes: a training
step samples 512 proposals, testing takes 1,000. They are built from one seed, so that trunk and RPN
are the same; the learning rate is 0, so that they stay so, and every turn starts with the same
random numbers: both sample the same proposals. The two take turns, each going first in every other
turn, and a ratio is taken within a turn.

Peak memory: each preset runs in a process of its own, which reports how far the high-water mark
of its resident set (on a GPU: of PyTorch's allocator) rose above what the interpreter and its
libraries take. glibc's thresholds for handing memory back are fixed there: the mark would else
depend on the order in which blocks are freed.

Last, the classification stage (from features to the gradient of its losses) against a plain one,
written below as the equations read: Python loops over images and classes, over positives and the
members of their group.

Run as a script: ``python tests/benchmarks/bench_deepacc.py``.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_lightning_step import BareLoop
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hydra.utils import instantiate
from measurement import Measurement
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from deepacc_d2.chromosomes import NUM_CLASSES, adjacency_matrix
from deepacc_d2.modeling import DeepACCPredictor
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.train import quiet

GOAL = 1.03
PRESETS = {"deepacc": "siamese_gia", "sep": "sep"}
SIZE = (800, 1067)
SAMPLED, TESTED = 512, 1000
# Pairs of a proposal and a class above the score threshold: some ten proposals a chromosome.
CANDIDATES = 500
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Seconds = dict[str, list[float]]
Job = Callable[[], Any]


def _compose(preset: str, overrides: tuple[str, ...]) -> DictConfig:
    data = ["data=coco", "data.root=/unused", "pixel_mean=200", "pixel_std=50"]
    fixed = ["scale=paper", "init_weights=null", "optim.optimizer.lr=0"]
    return compose_config("train", [f"experiment={preset}", *data, *fixed, *overrides])


def _build(cfg: DictConfig) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = instantiate(cfg.model)
    for name, buffer in model.named_buffers():
        # Random weights under frozen norms double the variance in each of 33 blocks.
        if name.endswith("conv3.norm.weight"):
            buffer.fill_(0.2)
    return model.to(DEVICE, memory_format=torch.channels_last)


def _batch(size: tuple[int, int]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    instances = Instances(size)
    sides = rng.uniform(20, 110, (46, 2))
    corners = rng.uniform(0, np.array(size[::-1]) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.arange(46) // 2
    image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
    return [{"image": image, "instances": instances, "height": size[0], "width": size[1]}]


class Subject:
    """One of the two detectors, with the work that is timed."""

    def __init__(self, preset: str, size: tuple[int, int], overrides: tuple[str, ...]) -> None:
        self.cfg = _compose(PRESETS[preset], overrides)
        self.model = _build(self.cfg)
        self.loop = BareLoop(self.model, self.cfg, total_steps=1000)
        self.batch = _batch(size)
        self.regions: list[int] = []
        self.model.roi_heads.box_head.register_forward_pre_hook(
            lambda _, inputs: self.regions.append(len(inputs[0]))
        )

    def train_step(self) -> None:
        """Forward, backward, clipping and the optimizer's step."""
        torch.manual_seed(1)
        self.model.train()
        self.loop.step(self.batch)

    def test(self) -> None:
        """Detection on the image."""
        self.model.eval()
        with (
            torch.no_grad(),
            torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=self.loop.bf16),
        ):
            self.model(self.batch)

    def set_candidates(self, count: int) -> None:
        """Sets the score threshold so that this many candidates go into the last NMS.

        The scores of untrained detectors say nothing: one would have all of them above the
        threshold of 0.05, the other none.
        """
        predictor = self.model.roi_heads.box_predictor
        predict, scores = predictor.predict_probs, []

        def remember(*arguments: Any) -> Any:
            scores.append(predict(*arguments))
            return scores[-1]

        predictor.predict_probs = remember
        self.test()
        del predictor.predict_probs  # the class's own shows again
        foreground = scores[0][0][:, :-1].flatten()
        predictor.test_score_thresh = float(foreground.topk(count + 1).values[-1])


class Heads:
    """The heads of a detector alone: pooled features to the gradient of the weighted losses."""

    def __init__(self, subject: Subject) -> None:
        heads = subject.model.roi_heads
        self.box_head, self.predictor = heads.box_head, heads.box_predictor
        self.bf16 = subject.loop.bf16
        generator = torch.Generator().manual_seed(0)
        channels = int(subject.cfg.scale.fpn.out_channels)
        self.pooled = torch.randn(SAMPLED, channels, 7, 7, generator=generator).to(DEVICE)
        self.pooled.requires_grad_()
        proposals = Instances(SIZE)
        corners = torch.rand(SAMPLED, 2, generator=generator) * 700
        boxes = torch.cat([corners, corners + 60.0], dim=1)
        proposals.proposal_boxes, proposals.gt_boxes = Boxes(boxes), Boxes(boxes + 4.0)
        proposals.gt_classes = _labels(SAMPLED)
        self.proposals = proposals.to(DEVICE)

    def step(self) -> None:
        """Forward and backward."""
        self.box_head.zero_grad()
        self.predictor.zero_grad()
        self.pooled.grad = None
        with (
            EventStorage(),
            torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            regions = self.box_head(self.pooled)
            if isinstance(self.predictor, DeepACCPredictor):
                output: Any = self.predictor(regions, [SAMPLED])
            else:
                output = self.predictor(regions)
            losses = self.predictor.losses(output, [self.proposals])
        sum(losses.values()).backward()


def _labels(count: int) -> Tensor:
    """A quarter of positives, as sampled: classes in turn, then background."""
    labels = torch.full((count,), NUM_CLASSES)
    labels[: count // 4] = torch.arange(count // 4) % NUM_CLASSES
    return labels


def _seconds(job: Job) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    job()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - cpu


def _take_turns(first: Job, second: Job, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Wall and CPU seconds, (turns, 2) each; an untimed turn before them warms up."""
    rows = []
    for turn in range(turns + 1):
        if turn % 2:
            b, a = _seconds(second), _seconds(first)
        else:
            a, b = _seconds(first), _seconds(second)
        rows.append([a, b])
    times = np.array(rows[1:])
    return times[..., 0], times[..., 1]


def _ratio(times: np.ndarray) -> float:
    return float(np.median(times[:, 0] / times[:, 1]))


def _timed(jobs: dict[str, Job], turns: int) -> tuple[float, dict[str, Any]]:
    """The median ratio of the first job's time to the second's, and further numbers."""
    names = list(jobs)
    wall, cpu = _take_turns(*jobs.values(), turns)
    seconds = dict(zip(names, np.median(wall, axis=0).tolist(), strict=True))
    return _ratio(wall), {
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "ratio_of_cpu_time": _ratio(cpu),
        "ratios": (wall[:, 0] / wall[:, 1]).tolist(),
    }


def _high_water() -> int:
    """Bytes of the process's resident set at its largest so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _report_memory(preset: str, size: tuple[int, int], overrides: tuple[str, ...]) -> None:
    """What a child process does: prints the peaks of testing and then of a training step."""
    quiet()
    before = _high_water()
    peak = torch.cuda.max_memory_allocated if DEVICE == "cuda" else lambda: _high_water() - before
    subject = Subject(preset, size, overrides)
    subject.test()
    tested = peak()
    subject.train_step()
    subject.train_step()  # the optimizer's momentum exists only after the first
    print(json.dumps({"test": tested, "train": peak()}))


def _memory(preset: str, size: tuple[int, int], overrides: tuple[str, ...]) -> dict[str, int]:
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "1",
    }
    arguments = json.dumps([preset, size, overrides])
    command = [sys.executable, __file__, "--memory", arguments]
    child = subprocess.run(command, env=environment, capture_output=True, check=False)
    if child.returncode:
        raise RuntimeError(f"the child for {preset} failed: {child.stderr.decode()[-2000:]}")
    peaks: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    return peaks


def _compare_detectors(
    turns: int, size: tuple[int, int], overrides: tuple[str, ...]
) -> list[Measurement]:
    subjects = {name: Subject(name, size, overrides) for name in PRESETS}
    model, other = (subject.model for subject in subjects.values())
    for part in ("backbone", "proposal_generator"):
        pairs = zip(
            getattr(model, part).parameters(), getattr(other, part).parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs), f"the {part}s differ"
    training = _timed({name: s.train_step for name, s in subjects.items()}, turns)
    sampled = {count for s in subjects.values() for count in s.regions}
    assert sampled == {SAMPLED}, f"sampled {sampled}"
    for subject in subjects.values():
        subject.set_candidates(CANDIDATES)
        subject.regions.clear()
    testing = _timed({name: s.test for name, s in subjects.items()}, 2 * turns)
    tested = {count for s in subjects.values() for count in s.regions}
    assert tested == {TESTED}, f"tested {tested}"
    heads = _timed({name: Heads(s).step for name, s in subjects.items()}, 4 * turns)
    some = {"image": list(size), "device": DEVICE, "bf16": subjects["sep"].loop.bf16}
    some["threads"] = torch.get_num_threads()
    how = f"R-101-FPN, one {size[0]} x {size[1]} image, in turn, median of"
    return [
        Measurement(
            name="DeepACC's training step / separated heads'",
            value=training[0],
            goal=f"<= {GOAL}",
            unit="x",
            how=f"{SAMPLED} proposals, {how} {turns} turns",
            details={**training[1], **some},
        ),
        Measurement(
            name="DeepACC's inference / separated heads'",
            value=testing[0],
            goal=f"<= {GOAL}",
            unit="x",
            how=f"{TESTED} proposals, {how} {2 * turns} turns",
            details={**testing[1], **some, "candidates": CANDIDATES},
        ),
        Measurement(
            name="DeepACC's heads / separated heads",
            value=heads[0],
            goal="-",
            unit="x",
            how=f"pooled features of {SAMPLED} proposals to gradients, median of {4 * turns} turns",
            details={**heads[1], **some},
        ),
    ]


def _compare_memory(size: tuple[int, int], overrides: tuple[str, ...]) -> Measurement:
    peaks = {name: _memory(name, size, overrides) for name in PRESETS}
    return Measurement(
        name="DeepACC's peak memory in training / separated heads'",
        value=peaks["deepacc"]["train"] / peaks["sep"]["train"],
        goal=f"<= {GOAL}",
        unit="x",
        how="PyTorch's allocator"
        if DEVICE == "cuda"
        else "resident set above the libraries', two training steps in a process each",
        details={
            "bytes": peaks,
            "ratio_in_testing": peaks["deepacc"]["test"] / peaks["sep"]["test"],
            "image": list(size),
            "device": DEVICE,
        },
    )


def plain_losses(
    predictor: DeepACCPredictor, features: Tensor, targets: Tensor, counts: list[int]
) -> dict[str, Tensor]:
    """The losses of margin branch, inference branch and GIA as Eqs. 1 to 3 read, unweighted.

    Args:
        predictor: whose weights and settings are taken.
        features: (N, d), classification stream.
        targets: (N,) class indices; K is background.
        counts: proposals of each image, summing to N.
    """
    margin, inference = predictor.margin_branch, predictor.inference_branch
    m, s = margin.criterion.m, margin.criterion.s
    adjacency = adjacency_matrix()
    global_centers = [F.normalize(w, dim=0) for w in margin.weight]
    per_image = zip(features.split(counts), targets.split(counts), strict=True)
    with_margin, inferred, overlaps = [], [], []
    for x, labels in per_image:
        unit = F.normalize(x, dim=1)
        cosines = torch.stack([unit @ center for center in global_centers], dim=1)
        scores = (s * cosines).softmax(dim=1)
        for row, label in enumerate(labels.tolist()):
            own = cosines[row, label]
            theta = torch.arccos(own)
            shifted = torch.cos(theta + m) if theta < math.pi - m else own - m * math.sin(m)
            logits = s * cosines[row].clone()
            logits[label] = s * shifted
            with_margin.append(logits)
        centers = []
        for j, center in enumerate(global_centers):
            # Scores round to 1; the log-odds, against all other classes, do not.
            others = torch.cat([s * cosines[:, :j], s * cosines[:, j + 1 :]], dim=1)
            best = int((s * cosines[:, j] - others.logsumexp(dim=1)).argmax())
            local = j < NUM_CLASSES and scores[best, j] > inference.delta
            centers.append(unit[best].detach() if local else center)
        inferred.append(x @ torch.stack(centers).t() + inference.bias)
        foreground = (s * cosines[:, :NUM_CLASSES]).softmax(dim=1)
        anchors: dict[int, Tensor] = {}
        for j in range(NUM_CLASSES):
            rows = [row for row, label in enumerate(labels.tolist()) if label == j]
            if rows:
                confidence = [float(foreground[row, j].detach()) for row in rows]
                anchors[j] = foreground[rows[int(np.argmax(confidence))]]
        for row, label in enumerate(labels.tolist()):
            if label < NUM_CLASSES:
                members = [j for j in anchors if adjacency[label, j]]
                terms = [foreground[row] @ anchors[j] for j in members]
                overlaps.append(torch.stack(terms).sum() if terms else features.sum() * 0.0)
    return {
        "margin": F.cross_entropy(torch.stack(with_margin), targets),
        "inference": F.cross_entropy(torch.cat(inferred), targets),
        "gia": torch.stack(overlaps).mean(),
    }


def own_losses(
    predictor: DeepACCPredictor, features: Tensor, targets: Tensor, counts: list[int]
) -> dict[str, Tensor]:
    """The same by this project's branches and losses."""
    margin, inference, gia = predictor.margin_branch, predictor.inference_branch, predictor.gia
    logits = margin(features)
    inferred, _ = inference(features, logits, margin.weight, counts)
    return {
        "margin": margin.loss(logits, targets),
        "inference": F.cross_entropy(inferred, targets),
        "gia": gia(logits, targets, counts),
    }


def _compare_stage(turns: int) -> Measurement:
    """Two images of 512 proposals whose features are near their class's center, as when trained."""
    torch.manual_seed(0)
    predictor = instantiate(_compose("siamese_gia", ()).model.roi_heads.box_predictor).to(DEVICE)
    counts = [SAMPLED, SAMPLED]
    targets = torch.cat([_labels(SAMPLED)] * 2).to(DEVICE)
    directions = F.normalize(predictor.margin_branch.weight.detach(), dim=1)[targets]
    features = 8.0 * directions + 0.8 * torch.randn_like(directions)
    features.requires_grad_()
    local = (predictor.margin_branch(features).softmax(dim=1) > 0.5)[:, :NUM_CLASSES].any(dim=0)
    assert local.any(), "no local center is taken"
    inputs = (predictor, features, targets, counts)
    parameters = [features, *predictor.margin_branch.parameters(), predictor.inference_branch.bias]
    own, plain = own_losses(*inputs), plain_losses(*inputs)
    for name, value in plain.items():
        torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-6, msg=f"{name} differs")
    gradients = [torch.autograd.grad(sum(x.values()), parameters) for x in (own, plain)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    value, details = _timed(
        {
            "ours": lambda: torch.autograd.grad(sum(own_losses(*inputs).values()), parameters),
            "plain": lambda: torch.autograd.grad(sum(plain_losses(*inputs).values()), parameters),
        },
        turns,
    )
    return Measurement(
        name="classification stage / plain one with Python loops",
        value=value,
        goal="-",
        unit="x",
        how=f"features of 2 x {SAMPLED} proposals to gradients, float32, values and gradients "
        f"checked equal, median of {turns} turns",
        details={**details, "device": DEVICE, "local_centers": int(local.sum())},
    )


def run(
    turns: int = 3, size: tuple[int, int] = SIZE, overrides: tuple[str, ...] = ()
) -> list[Measurement]:
    """Measures all; another size and other overrides are for trying it out."""
    quiet()
    # The children first: they need the memory, and a process that grew would be slow to start one.
    memory = _compare_memory(size, overrides)
    training, testing, heads = _compare_detectors(turns, size, overrides)
    return [training, testing, memory, heads, _compare_stage(2 * turns + 1)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        name, image_size, more = json.loads(sys.argv[2])
        _report_memory(name, tuple(image_size), tuple(more))
    else:
        for result in run():
            print(result)
