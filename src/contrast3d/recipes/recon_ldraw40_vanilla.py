"""The ablation of ReCon that shares all: queries are tokens among others, nothing stops their gradient.

    contrast3d pretrain recon-ldraw40-vanilla
    contrast3d evaluate svm runs/recon-ldraw40-vanilla
    contrast3d compare runs/recon-ldraw40 runs/recon-ldraw40-two-towers runs/recon-ldraw40-vanilla

In the paper's table, with 82.5 on ScanObjectNN against 90.6, it is the worst of the three.

Here, in bfloat16, three seeds: 49.3 +- 1.1 % by linear SVM on all labels, 71.5 in 5-way 10-shot trials, recon-ldraw40
49.4 and 71.4 (results/masked-ldraw40-*.json). Six minutes on one idle thread.
"""

from dataclasses import replace

from contrast3d.recipes import recon_ldraw40

RECIPE = replace(recon_ldraw40.RECIPE, block="standard", stop_gradient=False)
