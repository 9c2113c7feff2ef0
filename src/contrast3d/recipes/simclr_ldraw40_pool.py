"""SimCLR on LDraw-40 with 3,204 unlabelled LDraw parts and 747 pieces of furniture beside its training shapes.

No part shares a mould with a test shape. The pool is built once, from a Debian package:

    python tools/build_ldraw40.py --pool data/ldraw-pool.npz
    contrast3d pretrain simclr-ldraw40-pool --data-root data
    contrast3d evaluate linear runs/simclr-ldraw40-pool --data-root data

Linear probe at 5 / 10 / 20 / all labels per class: 35.1 / 41.0 / 45.6 / 54.0 % (one seed), the same encoder untrained
27.6 / 35.6 / 41.8 / 48.5. With 20 epochs, temperature 0.2, batch 64, weight decay 1e-4 and no furniture, three
seeds: 34.0 / 41.1 / 46.7 / 53.3 (results/simclr-ldraw40-pool-linear-*.json). About 30 minutes a seed on one quiet core.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as EMBEDDED

RECIPE = dataclasses.replace(
    EMBEDDED, extra_datasets=("LDrawPool", "SweetHome3D"), batch_size=128, epochs=30, warmup_epochs=2.0, probe_every=5,
)
