"""Point-MAE on LDraw-40, the embedded set of 2,537 CAD parts: offline, no download, two cores.

    contrast3d pretrain point-mae-ldraw40
    contrast3d evaluate svm runs/point-mae-ldraw40

With --block two-stream --queries cls img text it is the Point-MAE that ReCon's tables mark with a dagger: ReCon's
network, whose queries learn nothing.

Expected, in bfloat16, three seeds: 46.0 +- 1.6 % by linear SVM on all labels, 65.1 in 5-way 10-shot trials, untrained
37.0 and 58.9 (results/masked-ldraw40-*.json). Five minutes on one idle thread.
"""

from dataclasses import replace

from contrast3d.recipes import recon_ldraw40

RECIPE = replace(
    recon_ldraw40.RECIPE, method="point-mae", image_teacher="none", query_loss="smooth-l1", block="standard",
    queries=(), readout=("max", "mean"),
)
