"""The rows of ReCon's and Point-MAE's tables that fine-tune or probe a network: command and number of each.

Numbers are per cent, of the ReCon paper (Qi et al., ICML 2023) unless a row says otherwise; those of fine-tuning are
the best epoch on test of the best of several seeds. With the public weights others measured 0.7 to 1.5 points less.
"""

from __future__ import annotations

from dataclasses import dataclass

RECON, POINT_MAE = "recon-shapenet55-published", "point-mae-shapenet55"
BEST = "best epoch on test, no votes"
VOTED = "best epoch on test, then the best of 299 rounds of votes"
SCANS = {"ScanObjectNN": "PB_T50_RS", "ScanObjectNN-OBJ-BG": "OBJ_BG", "ScanObjectNN-OBJ-ONLY": "OBJ_ONLY"}


@dataclass(frozen=True)
class Row:
    """recipe: that pre-trains. what: as the table calls it. expected: per cent. how: the paper's protocol."""

    recipe: str
    what: str
    expected: float
    how: str
    arguments: str

    @property
    def command(self) -> str:
        """What to type once the recipe is trained."""
        return f"contrast3d evaluate {self.arguments.format(run=f'runs/{self.recipe}')} --data-root FOLDER"


def _tuned(recipe: str, dataset: str, what: str, expected: float, voting: bool = False) -> Row:
    more = " --voting published" if voting else ""
    return Row(recipe, what, expected, VOTED if voting else BEST,
               f"finetune {{run}} --dataset {dataset} --labels all --published{more}")


def _few_shot(recipe: str, mode: str, numbers: tuple[float, float, float, float]) -> list[Row]:
    trials = [(5, 10), (5, 20), (10, 10), (10, 20)]
    return [
        Row(recipe, f"few-shot {ways}w{shots}s, {mode}", expected, "mean over 10 trials of the best epoch on test",
            f"few-shot-finetune {{run}} --dataset ModelNet40 --mode {mode} --ways {ways} --shots {shots} --published")
        for (ways, shots), expected in zip(trials, numbers)
    ]


ROWS: tuple[Row, ...] = (
    *(_tuned(RECON, d, SCANS[d], e) for d, e in zip(SCANS, (90.63, 95.18, 93.63))),
    *(_tuned(RECON, d, f"{SCANS[d]}, votes", e, True) for d, e in zip(SCANS, (91.26, 95.35, 93.80))),
    _tuned(RECON, "ModelNet40", "ModelNet40, 1k points", 94.1),
    _tuned(RECON, "ModelNet40", "ModelNet40, 1k points, votes", 94.5, True),
    *_few_shot(RECON, "full", (97.3, 98.9, 93.3, 95.8)),
    *_few_shot(RECON, "mlp-linear", (96.9, 98.2, 93.6, 95.4)),
    *_few_shot(RECON, "mlp-3", (97.4, 98.5, 93.6, 95.7)),
    Row(RECON, "ModelNet40, linear SVM", 93.4, "C = 0.075, another checkpoint than the public one, which gave 92.4",
        "svm-released {run} --dataset ModelNet40"),
    Row(RECON, "ModelNet40, zero-shot", 61.7, "60 prompts; a checkpoint taught by CLIP's images; later 66.8",
        "zero-shot {run} --dataset ModelNet40"),
    Row(RECON, "ModelNet10, zero-shot", 75.6, "60 prompts; a checkpoint taught by CLIP's images",
        "zero-shot {run} --dataset ModelNet10"),
    Row(RECON, "ShapeNetPart, instance mIoU", 86.4, "the repository; two steps per batch, points with replacement",
        "part-segmentation {run} --dataset ShapeNetPart --labels all --published"),
    *(_tuned(POINT_MAE, d, SCANS[d], e) for d, e in zip(SCANS, (85.18, 90.02, 88.29))),
    _tuned(POINT_MAE, "ModelNet40", "ModelNet40, 1k points, votes", 93.8, True),
    *_few_shot(POINT_MAE, "full", (96.3, 97.8, 92.6, 95.0)),
    Row(POINT_MAE, "ModelNet40, linear SVM", 91.0, "as later papers quote it; pooling and C are not told",
        "svm-released {run} --dataset ModelNet40"),
    Row(POINT_MAE, "ShapeNetPart, instance mIoU", 86.1, "two steps per batch, points with replacement",
        "part-segmentation {run} --dataset ShapeNetPart --labels all --published"),
)


def markdown() -> str:
    """The rows as a table, as docs/methods/recon.md shows them."""
    lines = ["| recipe | row | published, % | as published | command |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(
        f"| {r.recipe} | {r.what} | {r.expected:g} | {r.how} | `{r.command}` |" for r in ROWS)])
